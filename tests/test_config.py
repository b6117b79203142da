from __future__ import annotations

import dataclasses
import itertools
import json
import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffdask.config import ALLOWED, Config, known_keys, load, parse_value
from ffdask.errors import BadInput
from ffdask.negatives import NEGATIVES
from ffdask.objectives import OBJECTIVES
from ffdask.schedules import SCHEDULES
from ffdask.tables import CLASSIFIERS

GRAPHS = Path(__file__).parents[1] / "graphs"
MNIST = GRAPHS / "mnist.toml"
TRIPLES = [(name, *pair) for name, parts in ALLOWED.items() for pair in itertools.product(*parts)]


def test_the_default_graph_file_holds_every_default_and_no_other_key():
    assert tomllib.loads(MNIST.read_text()) == Config().tables()


def test_no_file_is_the_default_graph():
    assert load() == load(MNIST) == Config()


@pytest.mark.parametrize("file", sorted(GRAPHS.glob("*.toml")), ids=lambda file: file.name)
def test_every_graph_file_is_valid(file):
    assert load(file).data.dataset


def test_tables_leave_out_what_was_left_out():
    plain = Config().tables()
    left_out = {
        f"{table}.{key}"
        for table, keys in dataclasses.asdict(Config()).items()
        for key, value in keys.items()
        if value is None
    }
    assert left_out == {
        *(
            "network.candidates",
            "run.checkpoint_every",
            "schedule.nodes",
            "schedule.chapters",
            "schedule.staleness",
            "cluster.scheduler",
            "cluster.workers",
        ),
        *("cluster.units", "cluster.memory_limit", "run.out", "run.report"),
        *("cluster.tls_ca", "cluster.tls_cert", "cluster.tls_key", "run.checkpoints", "run.checkpoint_seconds"),
    }
    assert not left_out & {f"{table}.{key}" for table, keys in plain.items() for key in keys}
    json.dumps(plain)


def test_keys_win_over_the_file(tmp_path):
    file = tmp_path / "g.toml"
    file.write_text('[training]\nepochs = 7\nseed = 3\n[network]\nlayers = [5]\n[run]\nout = "a"\n')
    config = load(file, {"training.epochs": 9, "network.layers": [6, 8], "run.out": "b"})
    assert (config.training.epochs, config.training.seed) == (9, 3)
    assert (config.network.layers, config.run.out) == ((6, 8), "b")
    assert config.training.batch_size == Config().training.batch_size


def test_one_layer_may_be_a_number():
    assert load(None, {"network.layers": 20}).network.layers == (20,)


def test_whole_numbers_are_rates_but_rates_are_no_counts():
    assert load(None, {"optimizer.learning_rate": 1}).optimizer.learning_rate == 1.0
    with pytest.raises(BadInput, match=r"training\.epochs: given 1\.5; must be a valid integer"):
        load(None, {"training.epochs": 1.5})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("true", True),
        ("false", False),
        ("streaming", "streaming"),
        ("all-layers", "all-layers"),
        ("10,20", [10, 20]),
        ("10, 20", [10, 20]),
        ("[10, 20]", [10, 20]),
        ("a,b", ["a", "b"]),
        ("0,10", [0, 10]),
        ("10,", [10, ""]),
        ('"a,b"', "a,b"),
        ("'3'", "3"),
        ("True", "True"),
        ("4GiB", "4GiB"),
        ("", ""),
        ("tcp://127.0.0.1:8786", "tcp://127.0.0.1:8786"),
    ],
)
def test_parse_value(text, value):
    got = parse_value(text)
    assert got == value
    assert type(got) is type(value)


def test_parse_value_knows_nan_and_inf():
    assert math.isnan(parse_value("nan"))
    assert parse_value("inf") == math.inf


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=30))
def test_parse_value_takes_any_text(text):
    parse_value(text)


def test_every_key_is_known_and_unknown_ones_are_refused():
    for dotted in known_keys():
        table, key = dotted.split(".")
        assert hasattr(getattr(Config(), table), key)
    values = {f"{table}.{key}": value for table, keys in Config().tables().items() for key, value in keys.items()}
    assert load(None, values) == Config()
    for dotted in known_keys():
        with pytest.raises(BadInput, match=f"unknown key '{dotted}x'.*did you mean"):
            load(None, {f"{dotted}x": 1})


def test_every_key_has_a_description():
    from ffdask.cli import descriptions

    assert {key for key, text in descriptions().items() if text} == set(known_keys())


def test_a_key_of_another_table_is_pointed_to():
    with pytest.raises(BadInput, match=r"unknown key 'training\.layers' \(did you mean 'network\.layers'\?\)"):
        load(None, {"training.layers": [3]})


def test_a_message_names_every_bad_key_once():
    with pytest.raises(BadInput) as caught:
        load(None, {"training.epochs": 0, "network.layers": ["a", "b"], "data.chunk": "x"})
    message = str(caught.value)
    for key in ("training.epochs", "network.layers", "data.chunk"):
        assert message.count(key) == 1


@pytest.mark.parametrize("keys", [{"epochs": 3}, {"": 3}, {"training.": 3}, {".epochs": 3}])
def test_what_is_no_key_is_refused(keys):
    with pytest.raises(BadInput):
        load(None, keys)


def test_a_configuration_is_immutable():
    config = Config()
    for table in dataclasses.fields(config):
        part = getattr(config, table.name)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, table.name, part)
        for key in dataclasses.fields(part):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(part, key.name, None)
    assert hash(config) == hash(Config())


def chosen(config: Config) -> tuple[str, str, str]:
    return config.network.objective, config.network.negatives, config.network.classifier


@pytest.mark.parametrize("objective", ALLOWED)
@pytest.mark.parametrize("file", ["", '[network]\nnegatives = "random"\nclassifier = "goodness"\n'])
def test_a_flag_that_changes_the_objective_brings_its_negatives_and_classifier(tmp_path, objective, file):
    (tmp_path / "g.toml").write_text(file)
    config = load(tmp_path / "g.toml", {"network.objective": objective})
    negatives, classifiers = ALLOWED[objective]
    if objective == "goodness" and file:
        # The objective that the file means, though it does not say so: nothing was changed.
        assert chosen(config) == ("goodness", "random", "goodness")
    else:
        assert chosen(config) == (objective, negatives[0], classifiers[0])


def test_a_flag_that_repeats_the_files_objective_changes_nothing(tmp_path):
    (tmp_path / "g.toml").write_text('[network]\nobjective = "symba"\nnegatives = "fixed"\nclassifier = "goodness"\n')
    assert chosen(load(tmp_path / "g.toml", {"network.objective": "symba"})) == ("symba", "fixed", "goodness")
    assert chosen(load(tmp_path / "g.toml", {"network.objective": "goodness"})) == ("goodness", "sampled", "softmax")


def test_negatives_and_classifier_that_are_flags_too_stay():
    keys = {"network.objective": "symba", "network.negatives": "adaptive", "network.classifier": "goodness"}
    assert chosen(load(None, keys)) == ("symba", "adaptive", "goodness")
    keys = {"network.objective": "classifier", "network.classifier": "last-head"}
    assert chosen(load(None, keys)) == ("classifier", "none", "last-head")
    with pytest.raises(BadInput, match="given as classifier, random, all-heads, which do not go together"):
        load(None, {"network.objective": "classifier", "network.negatives": "random"})


def test_a_file_that_names_only_the_objective_takes_what_goes_with_it(tmp_path):
    (tmp_path / "g.toml").write_text('[network]\nobjective = "classifier"\n')
    assert chosen(load(tmp_path / "g.toml")) == ("classifier", "none", "all-heads")
    (tmp_path / "g.toml").write_text('[network]\nobjective = "classifier"\nnegatives = "sampled"\n')
    with pytest.raises(BadInput, match="given as classifier, sampled, all-heads"):
        load(tmp_path / "g.toml")


def test_every_triple_is_allowed_or_named_with_the_table():
    every = itertools.product(OBJECTIVES, [*NEGATIVES, "none"], CLASSIFIERS)
    allowed = set()
    for triple in every:
        keys = dict(zip(("network.objective", "network.negatives", "network.classifier"), triple, strict=True))
        try:
            assert chosen(load(None, keys)) == triple
        except BadInput as error:
            message = str(error)
            assert f"given as {', '.join(triple)}, which do not go together" in message
            for name, (negatives, classifiers) in ALLOWED.items():
                assert f"{name} with {' | '.join(negatives)} and {' | '.join(classifiers)}" in message
        else:
            allowed.add(triple)
    assert allowed == set(TRIPLES)
    assert set(ALLOWED) == set(OBJECTIVES)
    assert len(allowed) == 18


_count = st.integers(1, 2**31 - 1)
_rate = st.floats(min_value=1e-12, max_value=1e12)
_share = st.floats(min_value=0, max_value=1, exclude_max=True)
_machines = st.integers(1, 4096)
_path = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
_text = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=12)


def _table(**keys):
    return st.fixed_dictionaries({}, optional=keys)


@st.composite
def _tables(draw):
    objective, negatives, classifier = draw(st.sampled_from(TRIPLES))
    batch, name = draw(_count), draw(st.sampled_from(sorted(SCHEDULES)))
    network = {"objective": objective, "negatives": negatives, "classifier": classifier}
    if (negatives, classifier) == ("adaptive", "goodness"):
        network |= draw(_table(candidates=_machines))
    exchanges = ["chunk", "batch"] if SCHEDULES[name].by_visit else ["chunk"]
    made = {
        "data": {"chunk": draw(st.integers(batch, 2**31 - 1))}
        | draw(
            _table(dataset=_text, validation=st.integers(0, 2**31 - 1), overlay=st.sampled_from(["replace", "append"]))
        ),
        "network": network | draw(_table(layers=st.lists(_count, min_size=1, max_size=5))),
        "training": {"batch_size": batch}
        | draw(
            _table(
                epochs=_count,
                shift=st.integers(0, 16),
                seed=st.integers(0, 2**63 - 1),
                device=st.sampled_from(["auto", "cpu", "gpu"]),
                scale=st.floats(min_value=1e-9, max_value=100),
            )
        ),
        "layer": draw(
            _table(
                threshold=_rate,
                goodness=st.sampled_from(["sum", "mean"]),
                dropout=_share,
                peer=st.floats(0, 1e6),
                peer_momentum=_share,
            )
        ),
        "optimizer": draw(
            _table(
                name=st.sampled_from(["momentum", "adam"]),
                learning_rate=_rate,
                momentum=_share,
                weight_decay=st.floats(0, 1e6),
                cooldown=st.floats(0, 1),
            )
        ),
        "head": draw(_table(rate=_rate, decay=st.floats(0, 1e6), momentum=_share)),
        "schedule": {"name": name}
        | draw(
            _table(
                exchange=st.sampled_from(exchanges),
                nodes=_machines,
                chapters=_count,
                staleness=st.integers(0, 2**31 - 1),
            )
        ),
        "cluster": draw(
            _table(
                scheduler=_text,
                workers=_machines,
                units=_machines,
                processes=st.booleans(),
                memory_limit=st.sampled_from(["1GB", "4 GiB", "1e9"]),
                wait=st.floats(0.5, 86400),
                strict_bits=st.booleans(),
            )
        ),
        "run": draw(
            _table(
                out=_path,
                overwrite=st.booleans(),
                evaluate_every=st.integers(0, 2**31 - 1),
                cut_every=_count,
                report=_path,
                quiet=st.booleans(),
            )
        ),
    }
    return {name: made[name] for name in draw(st.permutations(sorted(made))) if made[name]}


@given(_tables())
def test_valid_tables_survive_the_way_through_a_configuration(tables):
    keys = {f"{table}.{key}": value for table, part in tables.items() for key, value in part.items()}
    config = load(None, keys)
    plain = config.tables()
    for table, part in tables.items():
        assert {key: plain[table][key] for key in part} == part
    again = {f"{table}.{key}": value for table, part in plain.items() for key, value in part.items()}
    assert load(None, again) == config
    assert json.loads(json.dumps(plain)) == plain


def test_where_the_device_was_before_it_is_still_understood():
    assert load(None, {"cluster.device": "cpu"}).training.device == "cpu"
    assert load(None, {"cluster.device": "gpu", "training.device": "cpu"}).training.device == "cpu"
    with pytest.raises(BadInput, match=r"training\.device"):
        load(None, {"cluster.device": "tpu"})
