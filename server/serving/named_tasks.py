"""The tasks that a request names, as the engine knows them."""

from __future__ import annotations

from mass_serve.engine import Question, ServingEngine, UnknownTaskError
from mass_serve.server.errors import BadRequestError, NotFoundError


def with_known_tasks(question: Question, engine: ServingEngine) -> Question:
    """Returns the question with tasks in the place of names.

    Raises NotFoundError for an unknown one, and BadRequestError for the prior of one that is not asked.
    """
    try:
        return question.among(engine.tasks, engine.groups)
    except UnknownTaskError as error:
        raise NotFoundError(f"{str(error)[0].upper()}{str(error)[1:]}.") from error
    except ValueError as error:  # of priors
        raise BadRequestError(str(error)) from error
