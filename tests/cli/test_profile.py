"""`penstock profile`."""

import json


def test_a_profile_is_written_where_it_is_wanted(run, at, tmp_path):
    done = run("profile", "--seconds", "0.2", "--output", str(tmp_path / "p.html"), **at)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "p.html"))
    assert "</html>" in (tmp_path / "p.html").read_text()


def test_a_profile_goes_to_standard_output(run, at):
    done = run("profile", "--seconds", "0.2", "--format", "speedscope", "-o", "-", **at)
    assert "profiles" in json.loads(done.stdout)


def test_a_file_that_cannot_be_written_is_said(run, at):
    done = run("profile", "--seconds", "0.1", "-o", "/nowhere/p.html", **at)
    assert done.returncode == 73
    assert "cannot write /nowhere/p.html" in done.stderr
