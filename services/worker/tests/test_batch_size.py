"""How a batch that the database refuses is narrowed, and how the size grows again."""

from microfin_worker.batch_size import BatchSize


def test_a_refused_batch_is_halved_down_to_one_record_which_is_condemned() -> None:
    size = BatchSize(500)
    limits = []
    while not size.condemned:
        size.narrow(7, size.limit)
        limits.append(size.limit)
    assert limits == [250, 125, 62, 31, 15, 7, 3, 1, 1]
    assert size.condemned == {7}


def test_a_smaller_batch_than_the_limit_is_halved_by_its_size() -> None:
    size = BatchSize(500)
    size.narrow(7, 3)
    assert size.limit == 1


def test_after_a_condemned_record_the_next_one_is_tried_alone() -> None:
    size = BatchSize(4)
    size.narrow(7, 2)
    size.narrow(7, 1)
    limits = []
    for _ in range(4):
        size.committed(looks_up=True)
        assert not size.condemned
        limits.append(size.limit)
    assert limits == [1, 2, 4, 4]


def test_memory_is_doubtful_until_batches_rely_on_it_again() -> None:
    size = BatchSize(4)
    size.memory_is_doubtful = True
    size.committed(looks_up=True)
    assert size.memory_is_doubtful
    size.committed(looks_up=False)
    assert not size.memory_is_doubtful
