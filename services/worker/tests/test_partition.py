import pytest

from microfin_worker.partition import partition_from


@pytest.mark.parametrize(
    ("setting", "host", "partition"),
    [(3, "anything", 3), (0, "worker-7", 0), (None, "microfin-worker-0", 0), (None, "w-12", 12)],
)
def test_the_setting_comes_before_the_host_name(
    setting: int | None, host: str, partition: int
) -> None:
    assert partition_from(setting, host) == partition


@pytest.mark.parametrize("host", ["laptop", "worker", "worker-", "worker-1a", "7"])
def test_without_an_ordinal_the_error_names_the_setting(host: str) -> None:
    with pytest.raises(ValueError, match="MICROFIN_PARTITION"):
        partition_from(None, host)
