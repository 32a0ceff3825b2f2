"""The bundle's predict.py before it predicts: files as they were made, packages new enough. test_bundle.py runs the whole."""

from pathlib import Path

import pytest

from src.competitions import kernels
from src.inference import kernel


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "fold-0").mkdir()
    (tmp_path / "fold-0/model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.yaml").write_text("competition: digits\n")
    kernels.write_checksums(tmp_path)
    return tmp_path


def test_an_untouched_bundle_has_no_faults(bundle: Path):
    assert kernel.altered(bundle) == []


def test_the_metadata_that_kaggle_keeps_may_be_absent_or_filled_in(bundle: Path):
    for name in kernels.METADATA:
        (bundle / name).write_text("{}")
    assert kernel.altered(bundle) == []


def test_one_changed_byte_is_told_with_the_files_name(bundle: Path):
    (bundle / "fold-0/model.safetensors").write_bytes(b"weighty")
    (fault,) = kernel.altered(bundle)
    assert fault.startswith(f"{bundle / 'fold-0/model.safetensors'} was altered")


def test_a_missing_file_is_told(bundle: Path):
    (bundle / "config.yaml").unlink()
    (fault,) = kernel.altered(bundle)
    assert fault.startswith(f"{bundle / 'config.yaml'} is missing")


def test_without_checksums_the_bundle_is_not_complete(bundle: Path):
    (bundle / kernels.CHECKSUMS).unlink()
    assert kernel.altered(bundle) == [f"{bundle / kernels.CHECKSUMS} is missing: the bundle is not complete"]


def versions(monkeypatch: pytest.MonkeyPatch, **known: str) -> None:
    def version(name: str) -> str:
        if name.replace("-", "_") not in known:
            raise kernel.importlib.metadata.PackageNotFoundError(name)
        return known[name.replace("-", "_")]

    monkeypatch.setattr(kernel.importlib.metadata, "version", version)


def test_packages_at_their_bound_or_newer_are_taken_with_a_builds_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    versions(monkeypatch, torch="2.6.0+cu124", timm="1.0.9.dev0", numpy="2.0")
    (tmp_path / "r.txt").write_text("# bounds\ntorch>=2.6.0\ntimm>=1.0.8\n\nnumpy>=1.26\n")
    assert kernel.too_old(tmp_path / "r.txt") == []


def test_an_old_and_an_absent_package_are_told_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    versions(monkeypatch, timm="1.0.9")
    (tmp_path / "r.txt").write_text("timm>=1.0.15\nrich>=13.7.0\n")
    old, absent = kernel.too_old(tmp_path / "r.txt")
    assert old.startswith("timm 1.0.9 here, timm>=1.0.15 is needed")
    assert absent.startswith("no rich here, rich>=13.7.0 is needed")


def test_opencv_counts_under_any_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "r.txt").write_text("opencv-python-headless>=4.11.0\n")
    versions(monkeypatch, opencv_contrib_python="4.12.0.88")
    assert kernel.too_old(tmp_path / "r.txt") == []
    versions(monkeypatch, opencv_contrib_python="4.10.0.84")
    assert len(kernel.too_old(tmp_path / "r.txt")) == 1
