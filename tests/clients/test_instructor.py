"""instructor: answers as pydantic models, by tools and by JSON schemas, from a model that knows other texts by heart."""
from typing import Literal

import instructor
import openai
import pydantic
import pytest


class Bike(pydantic.BaseModel):
    """A bicycle."""
    colour: Literal["red", "blue"]
    gears: Literal[1, 3, 21]
    electric: bool


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])
def test_every_answer_is_a_bike(bird, mode):
    client = instructor.from_openai(openai.OpenAI(base_url=bird.url + "/v1", api_key="none", max_retries=0), mode=mode)
    for seed in range(3):
        bike = client.chat.completions.create(model="parrot", response_model=Bike, max_retries=0, seed=seed, max_tokens=200,
                                              messages=[{"role": "user", "content": "Describe a bicycle."}])
        assert isinstance(bike, Bike)
