"""Command lines that are wrong, and the files they find.

The rows of `TABLE` are command lines as a shell reads them, and what the message must say. They are run in a folder
that holds `FILES`.
"""
# ruff: noqa: RUF001 - digits of other scripts are among the mistakes

from mtrl import cli

CONFIG = cli.parse(["--env", "toy", "--seed", "3", "--device", "cpu", "--network.hidden-dims", "8"]).to_yaml()
CUT = CONFIG[: CONFIG.index("agent:") + 3]
MEASURED = '{"kind": "train", "step": 5, "critic_transference": %s}\n'

FILES: dict[str, str | bytes | None] = {
    "file": "text",
    "bare/": None,
    "busy/notes.txt": "mine",
    "run/config.yaml": CONFIG,
    "run/checkpoints/.partial-000000000100/agent.pt": "half",
    "torn/config.yaml": CUT,
    "torn_number/config.yaml": CONFIG[: CONFIG.index("seed: 3") + 6],
    "short/config.yaml": "seed: 1\n",
    "empty/config.yaml": "",
    "binary/config.yaml": b"\x80\x00\xff",
    "other_env/config.yaml": CONFIG.replace("env: toy\n", "env: toyy\n"),
    "other_network/config.yaml": CONFIG.replace("network: mlp\n", "network: mlpp\n"),
    "unknown/config.yaml": CONFIG + "foo: 1\n",
    "binary_metrics/config.yaml": CONFIG,
    "binary_metrics/metrics.jsonl": b"\x80\xff\n",
    "odd_metrics/config.yaml": CONFIG,
    "odd_metrics/metrics.jsonl": '[]\n{}\n{"kind": "train"}\n7\n' + MEASURED % '[1, "a"]',
    "seen/config.yaml": cli.parse(["--env", "mt10", "--device", "cpu"]).to_yaml(),
    "torn_report/config.yaml": "agent: [x\n",
    "torn_report/metrics.jsonl": "{}\n",
    "binary_report/config.yaml": b"\x80\x00\xff",
    "binary_report/metrics.jsonl": "{}\n",
    "torn_sweep/mean-0/config.yaml": "agent: [x\n",
    "unknown.yaml": "totl_steps: 5",
    "type.yaml": "total_steps: many",
    "tab.yaml": "env: toy\n\tseed: 1\n",
    "open.yaml": "env: [toy\n",
    "list.yaml": "- env\n- toy\n",
    "text.yaml": "toy",
    "empty.yaml": "",
    "binary.yaml": b"\xff\xfe\x00",
    "tag.yaml": 'seed: !!python/object/apply:os.system ["touch executed"]\n',
    "tag_whole.yaml": '!!python/object/apply:os.system ["touch executed"]\n',
    "tag_key.yaml": "!!python/name:os.system : 1\n",
    "tag_number.yaml": "seed: !!int 5\n",
    "twice.yaml": "seed: 1\nseed: 2\n",
    "nested.yaml": "seed: [[1]]\n",
    "deep.yaml": "{a: " * 2000,
    "endless.yaml": "a: &a\n  b: *a\n",
    "bomb.yaml": "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}}}\n" for n in range(1, 50)),
    "two.yaml": "env: toy\n---\nenv: mt10\n",
    "resume.yaml": "resume: run\n",
    "line.yaml": '"seed\\nx": 1\n',
    "broken_module.py": "def",
    "raising_module.py": "raise RuntimeError('mine')",
    "method.yaml": "aggregator: raising_module:X\n",
    "network.yaml": "network: raising_module:X\n",
    "task.yaml": "env: gymnasium:Pendulum-v1,raising_module:A-v0\n",
    "foreign/config.yaml": CONFIG.replace("actor.aggregator: mean\n", "actor.aggregator: raising_module:X\n"),
    "foreign_env/config.yaml": CONFIG.replace("env: toy\n", "env: gymnasium:raising_module:A-v0\n"),
}

TABLE = """
# ---- names of flags
train                                       | --env is required | mt10
train mt10                                  | 'mt10' | expected a flag such as --env
train -e mt10                               | -e | two dashes
train --envv toy                            | --envv | Did you mean --env?
train --env toy --total-step 5              | --total-step: | Did you mean --total-steps?
train --env toy --gamma 0.9                 | --gamma | Did you mean --agent.gamma?
train --env toy --foo 1                     | --foo: no such flag
train --env toy --                          | --: no such flag
train --env toy --aggregator.c 0.2          | --aggregator.c | 'mean' has no such option | cagrad
train --env toy --sead 1                    | --sead: no such flag | Did you mean --seed?
train --env toy $'--seed\\nx' 1             | --seed\\nx: no such flag
train --env toy $'--\\x1b[2J' 1             | --\\x1b[2J: no such flag

# ---- names of things
train --env toy --aggregator algned         | --aggregator | 'algned' | Did you mean 'aligned'? | Choices: aligned
train --env toy --aggregator ''             | --aggregator: expected one name, got ''
train --env toy --aggregator mean aligned   | --aggregator: expected one name, got 'mean aligned'
train --env toy --network mlpp              | --network | 'mlpp' | Did you mean 'mlp'?
train --env toy --agent sac                 | --agent | 'sac' | mtsac
train --env toy --actor.aggregator famo     | --actor.aggregator | 'famo' needs positive losses | --critic.aggregator

# ---- classes of the user's own
train --env toy --aggregator nowhere:X      | --aggregator | 'nowhere:X' | cannot import module 'nowhere'
train --env toy --aggregator broken_module:X | --aggregator | cannot import module 'broken_module' | invalid syntax
train --env toy --agent raising_module:X    | --agent | cannot import module 'raising_module': mine
train --env toy --aggregator ../x:X         | --aggregator | '../x:X' | MODULE:CLASS as in my_module:MyClass
train --env toy --aggregator mean:          | --aggregator | 'mean:' | MODULE:CLASS as in my_module:MyClass
train --env toy --aggregator mtrl.aggregators.mean:Meam | Did you mean mtrl.aggregators.mean:Mean?
train --env toy --actor.aggregator mtrl.networks.mlp:MLP | --actor.aggregator | base.Aggregator. | has: none.
train --env toy --network mtrl.aggregators.base:Aggregator | --network | methods of mtrl.interfaces.Network
train --env toy --preset method.yaml        | --aggregator (in method.yaml) | would import raising_module
train --env toy --preset network.yaml       | --network (in network.yaml) | set MTRL_MODULES=raising_module
train --preset task.yaml                    | --env (in task.yaml) | would import raising_module
train --resume foreign                      | --actor.aggregator (in foreign/config.yaml) | would import raising_module
evaluate foreign                            | --actor.aggregator (in foreign/config.yaml) | would import raising_module
export foreign_env                          | --env (in foreign_env/config.yaml) | would import raising_module

# ---- environments
train --env                                 | --env: expected one name, got nothing
train --env ''                              | --env: expected one name, got ''
train --env toy mt10                        | --env: expected one name, got 'toy mt10'
train --env mt11                            | --env | 'mt11' | Did you mean 'mt1'? | mt10
train --env ../toy                          | --env | '../toy' | Choices: toy
train --env mt10:reach                      | --env | 'reach' | Did you mean 'reach-v3'?
train --env mt10:reach-v3,pusj-v3           | --env | 'pusj-v3' | Did you mean 'push-v3'?
train --env reach-v2                        | --env | 'reach-v2' | Did you mean 'reach-v3'?
train --env mt10:reach-v3,reach-v3          | --env | names reach-v3 more than once, expected each task once
train --env mt10:reach-v3,,push-v3          | --env | unknown task of mt10 '' | reach-v3
train --env mt10:                           | --env | unknown task of mt10 ''
train --env 'mt10:reach-v3, push-v3'        | --env | ' push-v3' | Did you mean 'push-v3'?
train --env mt1                             | --env | 'mt1' needs a task, as in 'mt1:reach-v3'
train --env mt1:reach-v3,push-v3            | --env | mt1 is one task | 'mt10:reach-v3,push-v3'
train --env mt١٠                            | --env | 'mt١٠'
train --env gymnasium                       | --env | needs ids
train --env gymnasium:Pendulm-v1            | --env | 'Pendulm-v1' | Did you mean Pendulum-v1?
train --env gymnasium:Pendulum-v1,          | --env | unknown Gymnasium environment ''
train --env gymnasium:CartPole-v1           | 'CartPole-v1' | Discrete(2) | expected a Box
train --env gymnasium:nowhere:Slope-v0      | --env | cannot import module 'nowhere' | expected one that Python finds
train --env gymnasium:../x:Slope-v0         | --env | expected the name of a module before ':', got '../x'
train --env gymnasium:broken_module:A-v0    | --env | cannot import module 'broken_module' | invalid syntax
train --env gymnasium:raising_module:A-v0   | --env | cannot import module 'raising_module' | mine

# ---- presets
train --env toy --preset                    | --preset: expected a name | mt10_cpu | path
train --env toy --preset ''                 | --preset | unknown preset ''
train --preset mt10_cpuu                    | --preset | 'mt10_cpuu' | Did you mean 'mt10_cpu'?
train --preset twise.yaml                   | --preset | 'twise.yaml' | Did you mean 'twice.yaml'?
train --preset busy                         | --preset: expected a name or a YAML file, got 'busy'
train --env toy --preset unknown.yaml       | --totl-steps (in unknown.yaml) | Did you mean --total-steps?
train --env toy --preset type.yaml          | --total-steps (in type.yaml): expected an integer or None, got 'many'
train --env toy --preset tab.yaml           | tab.yaml is not YAML | '\\t' | line 2
train --env toy --preset open.yaml          | open.yaml is not YAML | line 1 | expected ',' or ']'
train --env toy --preset list.yaml          | list.yaml must hold lines of the form `key: value`, found '- env'
train --env toy --preset text.yaml          | text.yaml must hold lines of the form `key: value`, found 'toy'
train --preset empty.yaml                   | --env is required
train --env toy --preset binary.yaml        | binary.yaml is not YAML | byte 0xff
train --env toy --preset tag.yaml           | tag.yaml: seed has the YAML tag | os.system | expected a plain value
train --env toy --preset tag_whole.yaml     | tag_whole.yaml must hold lines of the form `key: value` | os.system
train --env toy --preset tag_key.yaml       | tag_key.yaml: a key has the YAML tag | os.system
train --env toy --preset tag_number.yaml    | tag_number.yaml: seed has the YAML tag | int
train --env toy --preset twice.yaml         | twice.yaml sets seed twice
train --env toy --preset nested.yaml        | nested.yaml: seed must be a value or a list of values
train --env toy --preset deep.yaml          | deep.yaml is nested too deeply
train --env toy --preset endless.yaml       | endless.yaml: a.b repeats a mapping by an alias
train --env toy --preset bomb.yaml          | bomb.yaml: a1.p repeats a mapping by an alias
train --preset two.yaml                     | two.yaml is not YAML | expected a single document
train --env toy --preset resume.yaml        | resume.yaml: resume belongs on the command line
train --env toy --preset line.yaml          | --seed\\nx (in line.yaml): no such flag

# ---- run directories
train --env toy --run-dir                   | --run-dir: expected a path or None, got nothing
train --env toy --run-dir ''                | --run-dir: expected a name of letters, digits and ._- only, got ''
train --env toy --run-dir a b               | --run-dir: expected a path or None, got 'a b'
train --env toy --run-dir file              | --run-dir: file is a file
train --env toy --run-dir file/run          | --run-dir: cannot write file/run: Not a directory
train --env toy --run-dir busy              | --run-dir: busy is not empty | name another
train --env toy --run-dir 'a b'             | --run-dir: expected a name of letters | got 'a b'
train --env toy --run-dir '$(touch x)'      | --run-dir: expected a name of letters | '$(touch x)'
train --env toy --run-dir $'a\\nb'          | --run-dir: expected a name of letters | 'a\\nb'
train --env toy --run-dir $'a\\nb/c'        | --run-dir: expected a name of letters | 'a\\nb'
train --env toy --run-dir bare/..           | --run-dir: expected a name of letters | '..'
train --env toy --run-dir nowhere/../run_2  | --run-dir: expected a name of letters | '..'
train --env toy --run-dir ./-x              | --run-dir: expected a name of letters | '-x'
train --env toy --run-dir '~/run'           | --run-dir: expected a name of letters | '~'
train --env toy --run-dir bare/LONG         | --run-dir: cannot use | name too long
train --env gymnasium:CartPole-v1 --run-dir a/b/c | 'CartPole-v1' | expected a Box
train --env gymnasium:CartPole-v1 --run-dir bare  | 'CartPole-v1' | expected a Box

# ---- runs to continue
train --resume                              | --resume: expected one name, got nothing
train --resume nowhere                      | nowhere is no run: expected a folder with a config.yaml
train --resume bare                         | bare is no run
train --resume file                         | file is no run
train --resume run/config.yaml              | run/config.yaml is no run: expected a folder
train --resume run                          | --resume: run has no complete checkpoint to continue from
train --resume run --env mt10               | --env cannot change in a run that is continued; only --total-steps
train --resume run --network multi_head     | --network cannot change in a run that is continued
train --resume run --network.hidden-dims 9  | --network.hidden-dims cannot change
train --resume run --matmul-precision tf32  | --matmul-precision cannot change
train --resume run --run-dir new            | --run-dir cannot change
train --resume run --preset mt10            | --preset cannot change
train --resume run --total-steps 0          | --total-steps: must be at least 1, got 0
train --resume torn                         | torn/config.yaml is not YAML | line
train --resume torn_number                  | torn_number/config.yaml is torn: expected whole lines
train --resume short                        | short/config.yaml is torn | expected | `env: NAME`
train --resume empty                        | empty/config.yaml is torn | expected | `env: NAME`
train --resume binary                       | binary/config.yaml is not YAML | byte 0x80
train --resume other_env                    | --env (in other_env/config.yaml) | 'toyy' | Did you mean 'toy'?
train --resume other_network                | --network (in other_network/config.yaml) | 'mlpp' | Did you mean 'mlp'?
train --resume unknown                      | --foo (in unknown/config.yaml): no such flag
train --resume auto --env toy               | --resume auto needs --run-dir
train --resume auto --env toy --run-dir busy | --run-dir: busy is not empty
train --resume auto --env toy --run-dir torn | torn/config.yaml is not YAML
train --resume auto --env toy --run-dir run  | --resume auto: --seed is 0, and the run in run was started with 3

# ---- values
train --env toy --total-steps               | --total-steps: expected an integer or None, got nothing
train --env toy --total-steps ''            | --total-steps: expected an integer or None, got ''
train --env toy --total-steps -1            | --total-steps: must be at least 1, got -1
train --env toy --total-steps 1.5           | --total-steps: expected an integer or None, got '1.5'
train --env toy --total-steps 1 2           | --total-steps: expected an integer or None, got '1 2'
train --env toy --total-steps nan           | --total-steps: expected an integer or None, got 'nan'
train --env toy --total-steps 1e400         | --total-steps: expected an integer or None, got '1e400'
train --env toy --total-steps ١٢            | --total-steps: expected an integer or None in the digits 0 to 9, got '١٢'
train --env toy --total-steps 99999999999999999999 | --total-steps | of at most 9223372036854775807 | got '999
train --env toy --seed -1                   | --seed: must be at least 0, got -1
train --env toy --seed 9223372036854775808  | --seed: expected an integer of at most 9223372036854775807
train --env toy --envs-per-task 1000000000  | --envs-per-task: must be at most 4096, got 1000000000
train --env toy --workers 0                 | --workers: must be at least 1, got 0
train --env toy --workers auto              | --workers: expected an integer or None, got 'auto'
train --env toy --threads 1000000000000     | --threads: must be at most 4096, got 1000000000000
train --env toy --device gpu                | --device: expected one of auto, cpu, cuda, got 'gpu'
train --env toy --matmul-precision bf16     | --matmul-precision: expected one of float32, tf32, bfloat16, got 'bf16'
train --env toy --matmul-precision          | --matmul-precision: expected one of float32, tf32, bfloat16, got nothing
train --env toy --device cpu --matmul-precision tf32 | --matmul-precision: expected float32 | got 'tf32'
train --env toy --device cuda:0             | --device | 'cuda:0' | Did you mean cuda?
train --env toy --on-nonfinite rais         | --on-nonfinite | 'rais' | Did you mean raise?
train --env toy --max-hours nan             | --max-hours: must be above 0, got nan
train --env toy --max-hours 1e400           | --max-hours: must be above 0 | got inf
train --env toy --eval-goals 51             | --eval-goals: expected at most 50 | got 51
train --env toy --agent.gamma 1.5           | --agent.gamma: must lie in [0, 1], got 1.5
train --env toy --agent.gamma nan           | --agent.gamma: must lie in [0, 1], got nan
train --env toy --agent.gamma ٠.٥           | --agent.gamma: expected a number in the digits 0 to 9, got '٠.٥'
train --env toy --agent.gamma high          | --agent.gamma: expected a number, got 'high'
train --env toy --agent.critic-lr 0         | --agent.critic-lr: must be positive, got 0.0
train --env toy --agent.critic-lr 1e400     | --agent.critic-lr: must be finite, got inf
train --env toy --agent.batch-size 99999999999 | --agent.batch-size: must be at least 1 and at most 1048576
train --env toy --replay.capacity 0         | --replay.capacity: must be at least 1, got 0
train --env toy --replay.capacity 1e6       | --replay.capacity: expected an integer, got '1e6'
train --env toy --network.hidden-dims       | --network.hidden-dims: must be one or more positive widths
train --env toy --network.hidden-dims 64,64 | --network.hidden-dims: expected integers separated by spaces, got '64,64'
train --env toy --network.hidden-dims 9999999999 | --network.hidden-dims: must be widths of at most 65536
train --env toy --aggregator aligned --aggregator.weights 1 2 | --critic.aggregator on toy | 4 tasks, 2 weights
train --env toy --aggregator aligned --aggregator.weights nan 1 1 1 | --aggregator.weights: must be finite | nan

# ---- evaluation
evaluate                                    | RUN is missing
evaluate nowhere                            | nowhere is no run: expected a folder with a config.yaml
evaluate bare                               | bare is no run
evaluate file                               | file is no run
evaluate torn                               | torn/config.yaml is not YAML
evaluate run                                | run has no complete checkpoint yet
evaluate run busy                           | RUN: expected a path, got 'run busy'
evaluate run --goal 3                       | --goal: no such flag. Did you mean --goals?
evaluate run -g 3                           | -g: no such flag | --goals
evaluate run --goals                        | --goals: expected an integer or None, got nothing
evaluate run --goals x                      | --goals: expected an integer or None, got 'x'
evaluate run --goals 0                      | --goals: expected at least 1, got 0
evaluate run --goals 51                     | --goals: expected at most 50 | got 51
evaluate run --goals ٣                      | --goals: expected an integer or None in the digits 0 to 9, got '٣'
evaluate run --device gpu                   | --device: expected one of auto, cpu, cuda, got 'gpu'
evaluate run --task reach-eats              | --task | 'reach-eats' | Did you mean 'reach-east'?
evaluate run --task ''                      | --task | ''
evaluate run --episodes 2                   | --episodes 2 needs --stochastic
evaluate run --stochastic=maybe             | --stochastic: expected True or False, got 'maybe'
evaluate run --seed 1                       | --seed needs --stochastic

# ---- groups
group                                       | RUNS is missing
group --groups 2                            | RUNS is missing
group run                                   | --groups is missing
group run --groups                          | --groups: expected an integer, got nothing
group run --groups two                      | --groups: expected an integer, got 'two'
group run --groups 0                        | --groups: expected 1 to 4 | got 0
group run --group 2                         | --group: no such flag. Did you mean --groups?
group run --groups 2 --part critics         | --part | 'critics' | Did you mean critic?
group run --groups 2 --alone nan            | --alone: expected a finite number, got nan
group run --groups 2 --seconds -1           | --seconds: expected a positive number, got -1.0
group nowhere --groups 2                    | nowhere is no run
group run --groups 2                        | cannot read run/metrics.jsonl: No such file
group binary_metrics --groups 2             | binary_metrics/metrics.jsonl holds no lines of JSON
group odd_metrics --groups 2                | odd_metrics: critic_transference is not a matrix of the 4 tasks

# ---- reports, videos, exports, sweeps, the doctor
report                                      | RUNS is missing
report nowhere                              | nowhere is not a run directory | metrics.jsonl is missing
report file                                 | file is not a run directory
report torn_report                          | torn_report/config.yaml is not YAML | line 1
report binary_report                        | binary_report/config.yaml is not YAML | byte 0x80
report odd_metrics                          | odd_metrics/metrics.jsonl has no record of training or evaluation yet
report odd_metrics --outptu x               | --outptu: no such flag. Did you mean --output?
record                                      | RUN is missing
record run                                  | there is nothing to see in toy
record nowhere                              | nowhere is no run
record seen --task reach                    | --task | 'reach' | Did you mean 'reach-v3'?
record seen --camera corner9                | --camera | 'corner9' | Did you mean 'corner
record seen --every 0                       | --every: expected at least 1, got 0
record seen --format avi                    | --format | 'avi' | mp4
export                                      | RUN is missing
export nowhere                              | nowhere is no run
export run                                  | run has no complete checkpoint yet
export torn                                 | torn/config.yaml is not YAML
sweep --env toy --aggregators mean          | --seeds
sweep --env toy --aggregators algned --seeds 0 | 'algned' | Did you mean 'aligned'?
sweep --env toy --aggregators mean --seeds 1.5 | --seeds: expected FROM:TO | '1.5'
sweep --env toy --aggregators mean --seeds 0 --seed 1 | --seed is set by the sweep; give --seeds 0:5
sweep --env toy --aggregators mean --seeds 0 --jobs 0 | --jobs: expected at least 1, got 0
sweep --env toy --aggregators mean --seeds 0 --sweep-dir torn_sweep | torn_sweep/mean-0/config.yaml is not YAML
sweep --env toy --aggregators mean --seeds 0 --gpus-per-run 2 | --gpus-per-run has no meaning for --launcher local
doctor now                                  | now: expected a flag
doctor --jsn                                | --jsn: no such flag. Did you mean --json?
"""
