"""Any schedule, with looks at the test set between chapters."""

from __future__ import annotations

from collections.abc import Callable

from ffdask.schedules.steps import Await, Need, Plan, Records, Schedule, Step


def evaluated(schedule: Callable[[Plan], Schedule], every: int) -> Callable[[Plan], Schedule]:
    """Return a schedule that yields `schedule`'s steps and, after each `every`-th chapter, a step that evaluates.

    That step reads the states as they are at the chapter's end and gives nothing, so it changes no bit of the result.
    """

    def steps(plan: Plan) -> Schedule:
        chapter_of = plan.calendar.chapter_of
        newest: dict[int, Step] = {}
        inner = schedule(plan)
        answer: Records | None = None
        last: Step | None = None
        while True:
            try:
                drawn = inner.send(answer)  # type: ignore[arg-type]
            except StopIteration:
                if last and not (chapter_of(last.round) + 1) % every:
                    yield _look(plan, newest, last)
                return
            answer = None
            if isinstance(drawn, Await):
                answer = yield drawn
                continue
            if last and chapter_of(last.round) != chapter_of(drawn.round) and not (chapter_of(last.round) + 1) % every:
                yield _look(plan, newest, last)
            if "state" in drawn.gives:
                newest[drawn.layer] = drawn
            last = drawn
            yield drawn

    return steps


def _look(plan: Plan, newest: dict[int, Step], last: Step) -> Step:
    # A schedule of one's own may not have trained every layer yet: those are as they began.
    needs = {f"state{layer}": Need(step.name, "state") for layer, step in sorted(newest.items()) if layer}
    if 0 in newest:
        needs["head"] = Need(newest[0].name, "state")
    return Step("evaluate", last.round, newest.get(plan.layers, last).node, needs=needs, word=plan.word)
