"""src/config.py: every mistake in a configuration is told with its file, its key and what is allowed."""

import contextlib
import re
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from src import config as configuration
from src.config import (
    BUILT_IN,
    REPOSITORY,
    CompetitionConfig,
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    TrackingConfig,
    TrainConfig,
    built_in,
    load,
)

BUILT_INS = sorted(file.stem for file in BUILT_IN.glob("*.yaml"))
EXPERIMENTS = sorted({*(REPOSITORY / "configs").rglob("*.yaml")} - {*(REPOSITORY / "configs/sweeps").iterdir()})


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load(path)
    assert "\n" not in str(error.value), "a mistake is told in one line"
    return str(error.value)


# What is wrong is named, with its place


@pytest.mark.parametrize(
    "text, key, nearest",
    [
        ("train: {epoch: 3}", "train.epoch", "train.epochs"),
        ("train: {batchsize: 3}", "train.batchsize", "train.batch_size"),
        ("data: {augmentations: none}", "data.augmentations", "data.augmentation"),
        ("trian: {epochs: 3}", "trian", "train"),
        ("epochs: 3", "epochs", "train.epochs"),
        ("train: {augmentation: light}", "train.augmentation", "data.augmentation"),
        ("data: {image_size: 64}", "data.image_size", "model.image_size"),
        ("bas: other.yaml", "bas", "base"),
        ("competition: {base: shopee, metrik: accuracy}", "competition.metrik", "competition.metric"),
    ],
)
def test_a_misspelt_key_names_the_nearest_knob(tmp_path, text, key, nearest):
    path = write(tmp_path, text)
    assert refusal(path) == f"{path}: {key}: unknown key; did you mean {nearest}?"


def test_a_key_that_resembles_nothing_gets_the_list_of_its_section(tmp_path):
    path = write(tmp_path, "predict: {qqqq: 1}")
    assert (
        refusal(path)
        == f"{path}: predict.qqqq: unknown key; known are predict.tta, predict.tta_mean, predict.batch_size, predict.unreadable"
    )


@pytest.mark.parametrize(
    "text, key, allowed",
    [
        ("data: {resize: cut}", "data.resize", "'crop', 'squash' or 'pad', not 'cut'"),
        ("data: {augmentation: heavy}", "data.augmentation", "'none', 'light', 'medium' or 'strong', not 'heavy'"),
        ("data: {folds: 1}", "data.folds", "greater than or equal to 2, not 1"),
        ("data: {rows: 1.5}", "data.rows", "valid integer"),
        ("train: {epochs: many}", "train.epochs", "valid integer"),
        ("train: {lr: .inf}", "train.lr", "finite number"),
        ("train: {lr: .nan}", "train.lr", "finite number"),
        ("train: {lr: 0}", "train.lr", "greater than 0, not 0 (peak learning rate"),
        ("train: {freeze: no}", "train.freeze", "'none', 'norm' or 'backbone', not False"),
        ("train: {epochs: 0}", "train", "epochs: 0 trains nothing"),
        ("train: {mixup: 0.2, batch_size: 7}", "train", "must be even, not 7"),
        ("train: 3", "train", "dictionary"),
        ("model: {mean: [0.5, 0.5]}", "model.mean", "wrong number of values (per channel"),
        ("model: {std: [0, 1, 1]}", "model.std", "above 0"),
        ("model: {image_size: 4}", "model.image_size", "greater than or equal to 8"),
        ("model: {kwargs: [pad_type]}", "model.kwargs", "'pad_type' is not of the form key=value"),
        ("model: {kwargs: ['a=[']}", "model.kwargs", "what follows = is not a value"),
        ("model: {kwargs: ['a=!!int b']}", "model.kwargs", "what follows = is not a value"),
        ("tracking: {mode: on}", "tracking.mode", "'auto', 'online', 'offline' or 'disabled'"),
        ("competition: {base: shopee, metric: acc}", "competition.metric", "'macro_f1', 'roc_auc' or 'quadratic_kappa'"),
        ("competition: {name: a b, train_csv: t.csv}", "competition.name", "match pattern"),
        ("competition: {train_csv: t.csv}", "competition.name", "is missing"),
        ("competition: 5", "competition", "a built-in one or a mapping, not 5"),
        ("competition:", "competition", "a built-in one or a mapping, not None"),
        ("competition: [shopee]", "competition", "a built-in one or a mapping"),
    ],
)
def test_a_bad_value_names_its_file_its_key_and_what_is_allowed(tmp_path, text, key, allowed):
    path = write(tmp_path, text)
    said = refusal(path)
    assert said.startswith(f"{path}: {key}: ")
    assert allowed in said


@pytest.mark.parametrize(
    "fields, said",
    [
        ("classes: ['0', '1', '0']", "classes: named twice: 0"),
        ("classes: [0, 1]", "valid string, not 0"),  # 00 without quotes would be read as a number
        ("submission_values: probability", "positive: name the class"),
        ("submission_values: probability, positive: x, classes: [y, z]", "'x' is not among the classes y, z"),
        ("submission_columns: [id]", "needs two columns"),
        ("submission_values: probabilities, classes: [a, b], submission_columns: [id, a]", "needs 3 columns"),
        ("classes: [a, b], submission_labels: ['0']", "submission_labels: 1 labels for 2 classes"),
        ("metric: roc_auc", "ROC AUC ranks probabilities"),
        ("label_preserving: [rot]", "'hflip', 'vflip' or 'turns', not 'rot'"),
        ("expected_train: 0", "greater than 0"),
        ("train_images: train/picture.jpg", "train_images: every row would have the same image"),
        ("test_images: test.jpg", "test_images: every row would have the same image"),
    ],
)
def test_a_competition_that_contradicts_itself_is_refused(tmp_path, fields, said):
    assert said in refusal(write(tmp_path, f"competition: {{name: mine, train_csv: t.csv, {fields}}}"))


def test_without_a_table_the_path_must_give_the_label(tmp_path):
    said = refusal(write(tmp_path, "competition: {name: mine, train_images: 'train/{id}.jpg'}"))
    assert "train/{label}/{id}.jpg" in said


def test_all_mistakes_are_told_at_once(tmp_path):
    said = refusal(write(tmp_path, "train: {epoch: 3, lr: -1}\ndata: {resize: cut}"))
    assert all(key in said for key in ("train.epoch:", "train.lr:", "data.resize:"))


@pytest.mark.parametrize(
    "name, nearest", [("shoppee", "shopee"), ("dogs-vs-cats", "dogs_vs_cats"), ("digit", "digits"), ("imagenet", None)]
)
def test_an_unknown_competition_names_those_that_are_built_in(tmp_path, name, nearest):
    path = write(tmp_path, f"competition: {name}")
    said = refusal(path)
    assert said.startswith(f"{path}: competition: {name!r} is not built in (those are {', '.join(BUILT_INS)})")
    assert (f"did you mean {nearest}?" in said) if nearest else ("did you mean" not in said)


@pytest.mark.parametrize("content", [b"a: [", b"\ttrain: 3", b"- 1", b"3", b"\xff\xfe\x00", b"{train: {epochs: 3}"])
def test_a_file_that_is_not_a_yaml_mapping_is_named(tmp_path, content):
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: ")


def test_a_missing_configuration_names_the_nearest_one_if_any_is_near():
    assert "did you mean" not in refusal(Path("zzz.yaml"))
    assert "did you mean configs/digits/baseline.yaml?" in refusal(Path("configs/digit/baselin.yaml"))


# Bases


def test_a_file_overrides_its_base_which_overrides_the_defaults(tmp_path):
    write(tmp_path, "train: {epochs: 7, lr: 0.5}\ndata: {folds: 4}\ncompetition: shopee", "bottom.yaml")
    write(tmp_path, "base: bottom.yaml\ntrain: {epochs: 8}", "middle.yaml")
    top = load(write(tmp_path, "base: middle.yaml\ndata: {folds: 3}", "top.yaml"))
    assert (top.train.epochs, top.train.lr, top.data.folds, top.competition.name) == (8, 0.5, 3, "shopee")
    assert top.train.batch_size == TrainConfig().batch_size


def test_a_base_is_looked_for_beside_the_file_that_names_it(tmp_path, monkeypatch):
    write(tmp_path, "base: ../below/bottom.yaml", "above/top.yaml")
    write(tmp_path, "train: {epochs: 7}", "below/bottom.yaml")
    monkeypatch.chdir("/")
    assert load(tmp_path / "above/top.yaml").train.epochs == 7


def test_a_mistake_is_told_with_the_file_of_the_chain_that_holds_it(tmp_path):
    bottom = write(tmp_path, "train: {lr: -1}", "bottom.yaml")
    top = write(tmp_path, "base: bottom.yaml\ntrain: {epochs: -1}", "top.yaml")
    said = refusal(top)
    assert f"{bottom}: train.lr: " in said
    assert f"{top}: train.epochs: " in said


@pytest.mark.parametrize("files", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
def test_bases_that_name_each_other_in_a_circle_are_refused(tmp_path, files):
    for name, base in files.items():
        write(tmp_path, f"base: {base}.yaml", f"{name}.yaml")
    assert "base: the files name each other in a circle" in refusal(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {epochs: 7, lr: 0.5, epochs: 9}", 'epochs stands there twice in "<unicode string>", line 1, column 29'),
        ("train: {epochs: 7}\ndata: {folds: 4}\ntrain: {lr: 0.5}", 'train stands there twice in "<unicode string>", line 3'),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path, text, said):
    path = write(tmp_path, text)
    assert refusal(path).startswith(f"{path}: not valid YAML: {said}")


def test_what_is_merged_into_a_mapping_may_stand_there_again(tmp_path):
    assert load(write(tmp_path, "competition: shopee\ntrain: {<<: {epochs: 7, lr: 0.5}, epochs: 9}")).train.epochs == 9


@pytest.mark.parametrize("base", ["nowhere.yaml", "3", "[a, b]", "''"])
def test_a_base_that_is_not_there_is_told_with_the_file_that_names_it(tmp_path, base):
    path = write(tmp_path, f"base: {base}")
    assert refusal(path).startswith(f"{path}: base: ")


def test_another_competition_replaces_the_bases_whole_one(tmp_path):
    write(tmp_path, "competition: shopee", "bottom.yaml")
    top = load(write(tmp_path, "base: bottom.yaml\ncompetition: digits", "top.yaml"))
    assert top.competition == built_in("digits")


def test_a_built_in_competition_can_be_the_base_of_another(tmp_path):
    mine = load(write(tmp_path, "competition: {base: shopee, name: mine, metric: macro_f1}")).competition
    assert mine == built_in("shopee").model_copy(update={"name": "mine", "metric": "macro_f1"})


# Built in, dumped, read again


@pytest.mark.parametrize("name", BUILT_INS)
def test_every_built_in_competition_is_valid_and_bears_its_own_name(name):
    assert built_in(name).name == name


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_configuration_of_the_repository_is_valid(path):
    assert isinstance(load(path), Config)


def test_shopees_classes_keep_their_leading_zeros():
    assert built_in("shopee").classes == tuple(f"{k:02d}" for k in range(42))


one_line = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))
words = st.one_of(st.sampled_from(["no", "1e3", "null", "~", "00", " x", "a: b", "#a", "é"]), st.text(one_line, max_size=8))
words = words.filter(lambda word: word != "none")
maybe = st.one_of(st.none(), words)
share = st.floats(0, 0.99)
channels = st.one_of(st.none(), st.tuples(*[st.floats(1e-6, 1)] * 3))


def is_yaml(pair: str) -> bool:
    try:
        configuration.parse_yaml(pair.partition("=")[2])
    except yaml.YAMLError:
        return False
    return True


readable = st.from_regex(r"\A[a-z_]+=.{0,5}\Z", alphabet=one_line).filter(is_yaml)
pairs = st.lists(readable, max_size=2).map(tuple)
configs = st.builds(
    Config,
    competition=st.sampled_from(BUILT_INS).map(built_in),
    model=st.builds(ModelConfig, name=words, weights=words, mean=channels, std=channels, dropout=share, kwargs=pairs),
    data=st.builds(DataConfig, root=maybe, folds=st.integers(2, 100), rows=st.one_of(st.none(), st.integers(2, 2**63 - 1))),
    train=st.builds(
        TrainConfig,
        epochs=st.integers(1, 2**63 - 1),
        lr=st.floats(1e-12, 100),
        ema=share,
        optimizer=words,
        channels_last=st.booleans(),
    ),
    tracking=st.builds(TrackingConfig, project=maybe, entity=maybe),
)


@given(configs)
def test_a_dumped_configuration_is_read_back_as_it_was(config):
    tree = yaml.safe_load(configuration.dump(config))
    assert configuration.validate(tree, {}) == config


@pytest.mark.parametrize("name", BUILT_INS)
def test_a_runs_config_file_can_be_loaded_as_a_configuration(tmp_path, name):
    config = Config(competition=built_in(name), train=TrainConfig(epochs=3))
    path = write(tmp_path, configuration.dump(config, made_with={"torch": "9.9", "device": "cpu"}))
    assert load(path) == config


def test_every_knob_is_written_out_in_a_dump():
    written = configuration.flatten(yaml.safe_load(configuration.dump(Config())))
    assert set(written) == {key for key, _ in configuration.knobs()}


@pytest.mark.parametrize("knob", ["data.root", "data.rows", "model.image_size", "train.clip_grad"])
def test_none_is_understood_as_the_help_spells_it(tmp_path, knob):
    section, key = knob.split(".")
    loaded = load(write(tmp_path, f"{section}: {{{key}: none}}"))
    assert getattr(getattr(loaded, section), key) is None


def test_none_stays_a_word_where_it_is_one_of_the_values(tmp_path):
    loaded = load(write(tmp_path, "data: {augmentation: none}\nmodel: {weights: none}"))
    assert (loaded.data.augmentation, loaded.model.weights) == ("none", "none")


# The knobs themselves


def test_every_knob_has_a_help_of_one_line():
    assert [key for key, field in configuration.knobs() if not re.fullmatch(r"[^\n]{10,140}", field.description or "")] == []


def test_a_configuration_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Config().train.epochs = 3


def test_models_keyword_arguments_become_python_values():
    model = ModelConfig(kwargs=("pad_type=same", "drop=0.5", "flag=true", "empty=", "eq=a=b"))
    assert model.arguments() == {"pad_type": "same", "drop": 0.5, "flag": True, "empty": None, "eq": "a=b"}


@pytest.mark.parametrize(
    "update",
    [
        {"data": DataConfig(workers=3, root="elsewhere")},
        {"train": TrainConfig(device="cuda")},
        {"tracking": TrackingConfig(mode="offline")},
    ],
)
def test_knobs_that_change_no_result_leave_a_runs_identity_and_name_alone(update):
    other = Config().model_copy(update=update)
    assert other.identity() == Config().identity()
    assert other.digest(Config()) == ""


@pytest.mark.parametrize(
    "update", [{"data": DataConfig(seed=1)}, {"train": TrainConfig(lr=0.5)}, {"competition": built_in("shopee")}]
)
def test_knobs_that_change_results_change_a_runs_identity_and_name(update):
    other = Config().model_copy(update=update)
    assert other.identity() != Config().identity()
    assert re.fullmatch("[0-9a-f]{6}", other.digest(Config()))


def test_the_probes_strength_belongs_to_a_run_that_has_a_probe():
    """A run of before, whose config.yaml says 0.004, goes on where the default is none now."""
    assert Config(train=TrainConfig(probe_strength=0.004)).identity() == Config().identity()
    fixed, chosen = (Config(train=TrainConfig(head="probe", probe_strength=value)).identity() for value in (0.004, None))
    assert configuration.differences(fixed, chosen) == ["train.probe_strength: 0.004 → None"]


def test_differences_are_listed_key_by_key():
    old, new = Config().identity(), Config(train=TrainConfig(lr=0.5, epochs=3)).identity()
    assert configuration.differences(old, new) == ["train.epochs: 10 → 3", "train.lr: 0.001 → 0.5"]
    assert configuration.differences(old, old) == []


@pytest.mark.parametrize("name, rows", [("digits", 256), ("shopee", 4 * 5 * 42)])
def test_a_shortened_configuration_is_valid_and_still_gives_every_class_to_every_fold(name, rows):
    short = configuration.shortened(Config(competition=built_in(name)))
    assert configuration.validate(short.model_dump(), {}) == short
    assert (short.data.rows, short.train.epochs, short.train.steps_per_epoch) == (rows, 2, 2)


def test_a_competition_can_be_written_out_in_yaml_alone():
    fields = yaml.safe_load("{name: mine, train_csv: t.csv, id_column: image_id, metric: quadratic_kappa}")
    assert CompetitionConfig.model_validate(fields).train_images == "train/{id}.jpg"


def test_every_kind_of_finding_but_those_without_a_row_to_train_on_has_a_policy():
    from src.config import POLICIES
    from src.data.audit import KINDS

    assert set(POLICIES) == set(KINDS) - {"missing", "orphan"}


# Hostile YAML

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("competition: {name: 2024-01-01}", "competition.name: must be a valid string, not datetime.date(2024, 1, 1); put it"),
        ("train: {lr: 2024-13-45}", "'2024-13-45' can't be read as timestamp; put it in quotes if text is meant"),
        ("train: {epochs: !!int abc}", "'abc' can't be read as int"),
        ("train: {epochs: " + "9" * 5000 + "}", "can't be read as int"),
        ("train: {epochs: 0x" + "f" * 10_000 + "}", "a number beyond 64 bits"),
        ("data: {rows: 99999999999999999999}", "a number beyond 64 bits"),
        ("data: {audit: !!bool maybe}", "'maybe' can't be read as bool"),
        ("!!python/object/apply:os.system ['touch pwned']", "could not determine a constructor"),
        ("a: " + "[" * 100_000, "nested too deeply"),
        ("a: " + "{a: " * 5000 + "}" * 5000, "nested too deeply"),
        (BOMB, "too many values"),
        (BOMB.replace("[", "[{k: ").replace(", ", "}, {k: ").replace("]", "}]"), "too many values"),
        ("train: &x {a: *x}", "too many values"),
        ("train: {epochs: 1\0}", "control characters are not allowed"),
        (r'competition: {name: "a\0b"}', r"holds the control character '\x00'"),
        (r'model: {name: "\x1b[31m"}', r"holds the control character '\x1b'"),
        ("1: 2", "the key 1 is no text; put it in quotes"),
        ("train: {on: 1}", "the key True is no text"),
        ("[1, 2]: 3", "unhashable key"),
        ("[1, 2]", "expected keys and values, found a list"),
        ("base: [a, b]", "base: must be a file's name, not ['a', 'b']"),
        ("base: mine.yaml", "base: the files name each other in a circle"),
        ("base: " + "x" * 5000, "base: xxx"),
        ("base: .", "base: .: not a file; name a YAML file"),
        ("competition: {base: ../../x}", "competition: '../../x' is not built in"),
        ("competition: {base: [a]}", "competition: ['a'] is not built in"),
        ("model: {kwargs: ['x=[1,2']}", "model.kwargs: 'x=[1,2': what follows = is not a value"),
        ("train: {optimizer: 1, lr: [" + "x" * 600_000 + "]}", "train.lr: must be a valid number"),
        ("competition: {name: x, classes: [" + ", ".join(map(str, range(3000))) + "]}", "and 2,995 more faults"),
        (bytes(range(256)), "not UTF-8, from byte 128 on"),
        ("train: {epochs: 1}".encode("utf-16"), "not UTF-8, from byte 0 on; save it as UTF-8 text"),
        (b"#" * 5_000_000, "more than 4,000,000 bytes"),
    ],
)  # fmt: skip
def test_whatever_a_file_holds_is_told_in_one_short_line(tmp_path, monkeypatch, raw, said):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    told = refusal(path)
    assert said in told
    assert "\n" not in told
    assert len(told) < 1000
    assert not (tmp_path / "pwned").exists()


def test_merge_keys_anchors_and_a_byte_order_mark_are_yaml(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbfmodel: {mean: &grey [0.5, 0.5, 0.5], std: *grey}\ntrain: {<<: {epochs: 3}, lr: 0.5}")
    read = load(path)
    assert (read.model.std, read.train.epochs, read.train.lr) == ((0.5, 0.5, 0.5), 3, 0.5)


@given(st.binary(max_size=200) | st.text(alphabet="ab1:-[]{}&*!|>'\"#%@,?~<=\n \t", max_size=60).map(str.encode))
def test_any_bytes_are_a_configuration_or_refused(raw):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.yaml"
        path.write_bytes(raw)
        with contextlib.suppress(ConfigError):
            load(path)


@given(st.text(max_size=60))
def test_any_value_of_the_command_line_is_read(text):
    configuration.read_value(text)
