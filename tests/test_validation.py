"""Checks of a request that depend on the device: what the sampler of a GPU has room for."""

import pytest

from rvllm.errors import InvalidRequestError
from rvllm.request import SamplingParams
from rvllm.validation import check_capacity

CAPACITY = {"logit_bias": 3, "bad_words": 4, "stop_token_ids": 5}


def test_what_fits_passes():
    p = SamplingParams(logit_bias={1: 1.0, 2: 1.0, 3: 1.0}, stop_token_ids=[1, 2, 3])
    check_capacity(p, [[1, 2], [3, 4]], 2, CAPACITY)


@pytest.mark.parametrize(
    ("params", "bad_words", "sentence"),
    [
        ({"logit_bias": dict.fromkeys(range(4), 1.0)}, [], "logit_bias has 4 entries; on a GPU at most 3 fit"),
        ({}, [[1, 2, 3], [4, 5]], "bad_words has 5 tokens in all; on a GPU at most 4 fit"),
        ({"stop_token_ids": [1, 2, 3, 4]}, [], "stop_token_ids has 6 entries; on a GPU at most 5 fit"),
    ],
)
def test_more_is_refused_by_name(params, bad_words, sentence):
    with pytest.raises(InvalidRequestError, match=sentence) as e:
        check_capacity(SamplingParams(**params), bad_words, 2, CAPACITY)
    assert e.value.param == sentence.split()[0]
