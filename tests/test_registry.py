"""Names are looked up in literal tables, and errors help."""

import dataclasses

import pytest

from mtrl import agents, aggregators, networks
from mtrl.registry import check_name, resolve

REGISTRIES = {
    "aggregator": aggregators.REGISTRY,
    "network": networks.REGISTRY,
    "agent": agents.REGISTRY,
}
ENTRIES = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry]


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_every_entry_is_a_documented_class_with_a_documented_config(kind, name):
    found = resolve(REGISTRIES[kind], kind, name)
    assert found.__doc__
    assert found.Config.__doc__
    assert found.Config() == found.Config()


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_configs_are_frozen_and_keyword_only(kind, name):
    config = resolve(REGISTRIES[kind], kind, name).Config
    assert config.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(config))


def test_resolve_imports_the_class_it_names():
    assert resolve({"ordered": "collections:OrderedDict"}, "mapping", "ordered").__name__ == "OrderedDict"


def test_unknown_name_is_refused_with_the_nearest_choice_and_all_of_them():
    expected = r"^unknown fruit 'aple'. Did you mean 'apple'\? Choices: apple, pear.$"
    with pytest.raises(ValueError, match=expected):
        resolve({"apple": "a:B", "pear": "c:D"}, "fruit", "aple")


def test_name_unlike_all_choices_is_refused_without_a_guess():
    with pytest.raises(ValueError, match=r"^unknown fruit 'zzz'. Choices: apple, pear.$"):
        check_name(["apple", "pear"], "fruit", "zzz")


def test_known_name_passes():
    check_name(iter(["apple", "pear"]), "fruit", "pear")


def test_registered_names_are_listed():
    assert aggregators.names() == tuple(aggregators.REGISTRY)
    assert {"aligned", "mean", "pcgrad"} <= set(aggregators.names())
