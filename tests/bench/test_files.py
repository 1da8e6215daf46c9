import os

from bench.files import MEBIBYTE, measure, told


def test_a_file_comes_back_as_it_was_and_its_way_is_measured(tmp_path):
    result = measure(tmp_path, 4 * MEBIBYTE + 1, sorted(os.sched_getaffinity(0)))
    assert result.same
    assert (tmp_path / "target.bin").read_bytes() == (tmp_path / "source.bin").read_bytes()
    for leg in (result.published, result.read):
        assert leg.megabytes_per_s > 0
        assert leg.command_peak_mib > 10
    assert result.gateway_peak_mib >= result.gateway_before_mib > 10
    assert "SHA-256  the same" in told(result)
