"""What the pages remember about pictures: bounded in bytes, refusals for a while."""

from poller.web.picture_cache import MOST_REFUSALS, NoPicture, Picture, PictureCache

NOT_YET = NoPicture(status=425, text="later", lasts=2.0)


def picture(size: int) -> Picture:
    return Picture(content=bytes(size), tag='"one"')


def test_the_picture_that_was_used_least_recently_goes_first() -> None:
    cache = PictureCache(30, largest=20)
    for number in (1, 2, 3):
        cache.add(number, picture(10), 0.0)
    assert cache.get(1, 0.0) is not None
    cache.add(4, picture(10), 0.0)
    assert [number for number in (1, 2, 3, 4) if cache.get(number, 0.0)] == [1, 3, 4]
    assert cache.bytes == 30


def test_the_bytes_of_thousands_of_pictures_stay_within_the_bound() -> None:
    cache = PictureCache(100_000, largest=50_000)
    for number in range(5_000):
        cache.add(number, picture(number % 997 * 50), 0.0)
        assert cache.bytes <= 100_000
    known = [found for number in range(5_000) if isinstance(found := cache.get(number, 0.0), Picture)]
    assert sum(len(one.content) for one in known) == cache.bytes


def test_a_picture_that_would_push_out_many_others_is_not_kept() -> None:
    cache = PictureCache(30, largest=20)
    cache.add(1, picture(10), 0.0)
    cache.add(2, picture(21), 0.0)
    assert cache.get(2, 0.0) is None
    assert cache.get(1, 0.0) is not None


def test_a_refusal_is_forgotten_when_its_time_is_over() -> None:
    cache = PictureCache()
    cache.add(1, NOT_YET, 100.0)
    assert cache.get(1, 101.9) == NOT_YET
    assert cache.get(1, 102.0) is None


def test_a_picture_replaces_the_refusal_before_it() -> None:
    cache = PictureCache()
    cache.add(1, NOT_YET, 100.0)
    cache.add(1, picture(10), 100.5)
    assert cache.get(1, 101.0) == picture(10)


def test_refusals_are_bounded_too() -> None:
    cache = PictureCache()
    for number in range(MOST_REFUSALS + 1):
        cache.add(number, NOT_YET, 0.0)
    assert cache.get(0, 1.0) is None
    assert cache.get(1, 1.0) == NOT_YET
