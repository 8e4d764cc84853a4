"""`fastconv export`: pictures of a file from the command line."""

import pytest
from helpers import synthetic

from fastconv.cli.main import BAD_INPUT, DONE, main
from fastconv.store.writer import write_run


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    result, _ = synthetic.layer_result(synthetic.layer_info("conv1", 2))
    path = tmp_path_factory.mktemp("run") / "run.h5"
    write_run(path, synthetic.CONFIG, iter([result]))
    return str(path)


def test_figures(file, tmp_path, capsys):
    out = tmp_path / "figures"
    assert (
        main(["export", "figures", file, str(out), "--layers", "conv*", "--format", "svg"]) == DONE
    )
    said = capsys.readouterr()
    assert said.out == f"{out}: 4 figures\n"
    assert said.err.startswith("1 of 1 layers (100%), ")
    assert len(list(out.rglob("*.svg"))) == 4


def test_tensorboard(file, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    out = tmp_path / "log"
    assert main(["export", "tensorboard", file, str(out)]) == DONE
    assert f"tensorboard --logdir {out}" in capsys.readouterr().out
    assert list(out.glob("events.out.tfevents.*"))


def test_graph(file, tmp_path, capsys):
    out = tmp_path / "net.dot"
    assert main(["export", "graph", file, str(out), "--colour", "max"]) == DONE
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text().startswith("digraph")


def test_bad_input_is_one_line_and_exit_code_2(file, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    for words in (
        ["graph", file, str(tmp_path / "net.png")],
        ["graph", file, str(tmp_path / "net.svg"), "--colour", "red"],
        ["figures", file, str(tmp_path / "taken")],
        ["figures", file, str(tmp_path / "out"), "--layers", "conv2"],
        ["tensorboard", file, str(tmp_path / "taken")],
        ["tensorboard", str(tmp_path / "gone.h5"), str(tmp_path / "log")],
    ):
        assert main(["export", *words]) == BAD_INPUT
        error = capsys.readouterr().err
        assert error.startswith("fastconv: ") and error.count("\n") == 1
    with pytest.raises(SystemExit) as stopped:
        main(["export", "hologram", file, "out"])
    assert stopped.value.code == BAD_INPUT
