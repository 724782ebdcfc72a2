"""Where our results differ on purpose from the published ones of tests/data: what, by how much, and why.

The one place that says so. The tests of the reference vectors leave these cases out of the comparison and test what is
done instead; `scripts/write_method_page.py` prints the table, with the differences measured on the vectors.
"""

from collections.abc import Callable
from typing import NamedTuple

from tests.aggregators import measures
from tests.aggregators.builders import is_one_of, result
from tests.aggregators.measures import relative
from tests.aggregators.vectors import load

CANCELLED = ("well_T50_P20", "rankdef_T5_P3", "rankdef_T10_P20", "opposite_*", "stationary_*", "allzero_*")
"""Some convex combination of the gradients is zero."""
DEPENDENT = ("well_T50_P20", "rankdef_*", "dup_scaled_*", "opposite_T3_P20", "stationary_*")


class Difference(NamedTuple):
    """One row of the table."""

    files: tuple[str, ...]
    cases: tuple[str, ...]
    """Patterns of the vectors that are not reproduced; none where a constant or a limit of accuracy is meant."""
    published: str
    ours: str
    why: str
    measure: Callable[[str], str] | None = None
    """From a file to the size of the difference; by default `relative` of our direction on `cases`."""

    def size(self, file: str) -> str:
        """Measure the difference on the vectors of one of the files."""
        if self.measure is not None:
            return self.measure(file)
        return relative((result(file, v), v.gradient) for v in load(file) if is_one_of(v, self.cases))


def inexact(file: str) -> str:
    """Describe the published solver where ours is exact, and the answer is more than rounding."""
    solved = [v for v in load(file) if v.entry.get("independent_exact") and not is_one_of(v, DIFFERENT[file])]
    pairs = [(result(file, vector), vector) for vector in solved]
    return relative((ours, v.gradient) for ours, v in pairs if ours.norm() > 1e-9 * v.jacobian.norm(dim=1).max())


ONE_CONVENTION = "weights 1/T each are one convention for all methods"
NASH, MGDA = ("nash_torchjd", "nash_official"), ("mgda_torchjd", "mgda_samsung", "mgda_nashmtl_repo")
NOT_DISTURBED = "a task without gradient must not disturb the others"

DIFFERENCES = (
    Difference(("aligned_mtl",), (), "sum of the aligned rows", "their mean", ONE_CONVENTION, measures.aligned_sum),
    Difference(
        ("aligned_mtl",),
        (),
        "rank tolerance from float32, 1.2e-7",
        "that of the float64 Gramian",
        "gradients as short as 1e-7 of the longest are not cut off",
        measures.aligned_rank,
    ),
    Difference(("aligned_mtl",), (), "exception without any gradient", "0", NOT_DISTURBED, measures.failures),
    Difference(
        ("aligned_mtl_ub",),
        (),
        "sum of the aligned rows",
        "their mean",
        ONE_CONVENTION,
        measures.stated("T times ours"),
    ),
    Difference(
        ("cagrad_torchjd", "cagrad_official_slsqp"),
        ("zero_row_*",),
        "0, or drawn to the mean",
        "that of the others",
        "a zero gradient has no worst case",
    ),
    Difference(
        ("cagrad_torchjd",),
        (
            "opposite_T3_P20/c0.5",
            "opposite_T3_P20/c0.9",
            "scaled6_T2_P20",
            "scaled6_T5_P20",
            "scaled6_T10_P20/c0.5",
            "scaled6_T10_P20/c0.9",
        ),
        "0, or off",
        "the minimum",
        "certified in test_cagrad.py",
    ),
    Difference(("cagrad_torchjd",), ("well_T50_P20/c0.9",), "off", "a better worst task", "solved exactly"),
    Difference(
        ("cagrad_official_slsqp",),
        ("opposite_T3_P20", "scaled6_*"),
        "0, or off",
        "the minimum",
        "certified in test_cagrad.py",
    ),
    Difference(("db_mtl_libmtl",), (), "sum, `n + 1e-8`", "mean, `n`", "gradients of any size", measures.db_mtl_sum),
    Difference(
        ("db_mtl_dibsrepo",),
        (),
        "weights of the averages on this update's gradients, clipped to length 1",
        "the averages themselves",
        "the paper's algorithm 1",
        measures.db_mtl_variant,
    ),
    Difference(
        ("dibs_single_mtl",),
        (),
        "T radius step times ours; 0 / 0 for a zero gradient",
        "mean of the other units",
        NOT_DISTURBED,
        measures.dibs_constant,
    ),
    Difference(
        ("dibs_multistep_mtl",),
        (),
        "radius times ours; may end outside the ball; `n + 1e-10`",
        "projected onto the ball; `n`",
        "the published rule projects",
        measures.dibs_constant,
    ),
    Difference(
        ("dibs_mtrl",),
        (),
        "radius times ours; a point outside the ball is dropped, which may leave 0",
        "projected onto the ball",
        "the published rule projects",
        measures.dibs_constant,
    ),
    Difference(("fairgrad_lsq",), CANCELLED, "noise where gradients cancel", "about 0", "there is no solution"),
    Difference(
        ("fairgrad_lsq",),
        ("scaled6_T10_P20/alpha0.5",),
        "residual 5e9",
        "below 0.1",
        "near float64's resolution",
    ),
    Difference(("graddrop",), (), "sum over tasks", "mean", ONE_CONVENTION, measures.graddrop_sum),
    Difference(("gradnorm",), (), "weights that sum to T", "to 1", ONE_CONVENTION, measures.gradnorm_sum),
    Difference(
        ("gradvac_libmtl",),
        (),
        "sum; 1e-8 added to denominators",
        "mean; nothing added",
        "no dependence on the gradients' scale",
        measures.gradvac_eps,
    ),
    Difference(
        ("gradvac_samsung",),
        (),
        "sum; NaN for opposite gradients",
        "mean; finite",
        "a cosine of -1 is a cosine",
        measures.gradvac_eps,
    ),
    Difference(
        ("imtl_g_official_lineage",), ("zero_row_*", "allzero_*"), "NaN", "that of the others; 0", NOT_DISTURBED
    ),
    Difference(
        ("imtl_g_official_lineage",),
        DEPENDENT,
        "about 0, or noise, of dependent gradients",
        "least squares of the projections",
        "the matrix is singular",
    ),
    Difference(
        ("imtl_g_torchjd",),
        ("well_T50_P20", "rankdef_*", "dup_scaled_*", "stationary_*"),
        "shortest weights, of dependent gradients",
        "least squares of the projections",
        "the projections are what is asked for",
    ),
    Difference(
        ("imtl_g_torchjd",),
        ("scaled6_*",),
        "short gradients cut off as dependent",
        "equal projections",
        "as the official formula has them",
    ),
    Difference(
        ("loss_weighting",),
        (),
        "rlw, si, imtl_l, uw, dwa: sum over tasks",
        "mean",
        ONE_CONVENTION,
        measures.loss_weights,
    ),
    Difference(
        ("loss_weighting",),
        (),
        "dwa compares with ones that are no losses",
        "waits until both windows are full",
        "the weights mean nothing before",
        measures.dwa_start,
    ),
    Difference(MGDA, ("zero_row_*",), "about 0", "shortest vector of the others", NOT_DISTURBED),
    Difference(
        MGDA,
        ("scaled6_T5_P20",),
        "2.7e-3 long, the file's independent solution",
        "5.5e-6 long",
        "the shorter vector of the hull is the right one",
    ),
    Difference(
        (*MGDA, *NASH, "cagrad_torchjd", "cagrad_official_slsqp", "fairgrad_lsq"),
        (),
        "solver stops early",
        "solved exactly",
        "the method is its definition",
        inexact,
    ),
    Difference(("moco_libmtl",), (), "`n + 1e-8`", "`n`", "gradients of any size", measures.moco_eps),
    Difference(
        ("moco_libmtl",),
        (),
        "a task that never had a gradient has a weight",
        "it has none",
        NOT_DISTURBED,
        measures.moco_zero_row,
    ),
    Difference(
        NASH,
        CANCELLED,
        "ones kept, an exception or noise where gradients cancel",
        "about 0",
        "there is no solution",
    ),
    Difference(NASH, ("zero_row_*",), "exception, or ones kept", "that of the others", NOT_DISTURBED),
    Difference(("nash_sequence",), (), "residual above 0.1", "below 1e-9", "solved exactly", measures.nash_unsolved),
    Difference(("pcgrad",), (), "sum of the projected gradients", "their mean", ONE_CONVENTION, measures.pcgrad_sum),
    Difference(
        ("pcgrad_mtrl",), (), "`n + 1e-8`", "`n`", "no dependence on the gradients' scale", measures.pcgrad_constants
    ),
    Difference(
        ("pcgrad_samsung",),
        (),
        "sum; `n^2 + 1e-5`, the task itself among the others, one order for all",
        "T times ours beside; `n^2`, others alone, an order for each",
        "no dependence on the gradients' scale",
        measures.pcgrad_constants,
    ),
    Difference(
        ("sdmgrad_mtrl",),
        (),
        "one orbit of 20 steps that do not settle",
        "another",
        "a rounding error of 1e-15 grows",
        measures.sdmgrad_second,
    ),
    Difference(
        ("transference_quadratic",),
        (),
        "sum over the subset",
        "that over T",
        ONE_CONVENTION,
        measures.stated("T times ours"),
    ),
    Difference(
        ("upgrad",),
        ("tiny_*",),
        "the plain mean below a Frobenius norm of 0.01",
        "as at any other scale",
        "nothing depends on the scale",
    ),
)

DIFFERENT = {
    file: tuple(case for entry in DIFFERENCES if file in entry.files for case in entry.cases)
    for entry in DIFFERENCES
    for file in entry.files
}
"""File -> patterns of the vectors that are not reproduced."""
