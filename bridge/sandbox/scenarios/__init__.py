"""The scenarios by name. `build` returns one as a tuple of steps, the same for the same name, seed and end.

Those of Stripe exist once per API version: `stripe-refund` is basil's, `stripe-refund@2020` is the oldest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge.errors import UsageError
from bridge.sandbox.scenarios import generic, lemonsqueezy, shapes, stripe, tools
from bridge.sandbox.scenarios.story import Expected, Ids, Step, Story, money

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["SCENARIOS", "SHAPES", "Expected", "Ids", "Scenario", "Step", "build", "money"]

SHAPES: Final = tuple(shapes.STRIPE)
DEFAULT_SHAPE: Final = "basil"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One life cycle. `help` is the first line of its docstring; shapes: the API versions in which it exists."""

    name: str
    tell: Callable[..., None]
    shapes: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        return (self.tell.__doc__ or "").strip().splitlines()[0]


def _stripe(name: str, tell: Callable[[Story, str], None]) -> Scenario:
    return Scenario(f"stripe-{name}", tell, SHAPES)


_ALL: Final = (
    _stripe("purchase", stripe.purchase),
    _stripe("refund", stripe.refund),
    _stripe("partial-refund", stripe.partial_refund),
    _stripe("delayed-payment", stripe.delayed_payment),
    _stripe("delayed-failure", stripe.delayed_failure),
    _stripe("dispute", stripe.dispute),
    _stripe("guest", stripe.guest),
    _stripe("payment-link", stripe.payment_link),
    _stripe("abandoned", stripe.abandoned),
    _stripe("subscription", stripe.subscription),
    _stripe("downgrade", stripe.downgrade),
    _stripe("payment-failed", stripe.payment_failed),
    _stripe("involuntary-churn", stripe.involuntary_churn),
    _stripe("renewal-refund", stripe.renewal_refund),
    _stripe("returning-customer", stripe.returning_customer),
    _stripe("two-subscriptions", stripe.two_subscriptions),
    _stripe("connect", stripe.connect),
    Scenario("lemonsqueezy-order", lemonsqueezy.order),
    Scenario("lemonsqueezy-subscription", lemonsqueezy.subscription),
    Scenario("lemonsqueezy-trial", lemonsqueezy.trial),
    Scenario("lemonsqueezy-payment-failed", lemonsqueezy.payment_failed),
    Scenario("lemonsqueezy-licence", lemonsqueezy.licence),
    Scenario("lemonsqueezy-paused", lemonsqueezy.paused),
    Scenario("generic-application", generic.application),
    Scenario("polar-order", generic.polar),
    Scenario("across-tools", tools.across),
)
SCENARIOS: Final[Mapping[str, Scenario]] = {scenario.name: scenario for scenario in _ALL}


def find(name: str) -> tuple[Scenario, str | None]:
    """The scenario and the API version named by `stripe-refund` or `stripe-refund@2020`."""
    bare, _, shape = name.partition("@")
    scenario = SCENARIOS.get(bare)
    if scenario is None:
        raise UsageError(f"there is no scenario {bare!r}; there are {', '.join(SCENARIOS)}")
    if shape and shape not in scenario.shapes:
        allowed = f"there are {', '.join(scenario.shapes)}" if scenario.shapes else "it has only one"
        raise UsageError(f"{bare} does not come in the version {shape!r}; {allowed}")
    return scenario, (shape or DEFAULT_SHAPE) if scenario.shapes else None


def build(name: str, *, seed: int, end_s: int, spread: bool = False, test: bool = False) -> tuple[Step, ...]:
    """The steps of a scenario, the last one at `end_s`.

    spread: keep the days between them (the first step may then be too old for a goal to be sent); otherwise they are
    one second apart. test: as the provider sends it in test mode, when it must not make a goal.
    """
    rehearsal = _tell(name, seed, 0, spread=spread, test=test)
    last_s = rehearsal[-1].at_s
    return _tell(name, seed, end_s - last_s, spread=spread, test=test)


def _tell(name: str, seed: int, start_s: int, *, spread: bool, test: bool) -> tuple[Step, ...]:
    scenario, shape = find(name)
    story = Story(name, seed, start_s=start_s, spread=spread, test=test)
    scenario.tell(story, shape) if shape else scenario.tell(story)
    return tuple(story.steps)
