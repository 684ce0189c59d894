"""A mapping file and the preset of its provider → the `Source`: verification, envelope, visitor, links, secrets.

A preset uses the grammar of a mapping file, so it is simply its defaults: the file's settings win, `envelope` and a
partial `verify` key by key, and the file's `links` are added to those of the preset.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bridge.masking import names_secret
from bridge.model import (
    PERSON_KINDS,
    BodyForm,
    EnvelopeSpec,
    FormerSpec,
    LinkSpec,
    PersonSpec,
    Requirement,
    Source,
    VerifySpec,
)
from bridge.rules.language.conditions import ALWAYS, Case, Cases
from bridge.rules.language.templates import BeginsWith, Template, Values
from bridge.rules.reading.named import check_template, circular, compile_values, merged_values, preset_values
from bridge.rules.reading.report import Diagnostics, Reporter, Steps, below, listed, numbered, paths, paths_or_templates
from bridge.rules.reading.schema import EnvelopeStanza, JsonField, LinkStanza, MappingFile, Preset, Stanzas, TestFlag
from bridge.rules.reading.secrets import Secrets, expand, names_to_show, refuse_malformed, secrets, variables
from bridge.rules.reading.strict_yaml import KEY
from bridge.rules.reading.verification import (
    CUSTOM,
    compile_handshakes,
    compile_verify,
    id_is_signed,
    in_preset,
    signs_its_url,
    valid_preset,
)
from bridge.rules.reading.when import compile_when
from bridge.text import did_you_mean, text_of

if TYPE_CHECKING:
    from bridge.model import Json
    from bridge.rules.language.paths import CompiledPath
    from bridge.rules.reading.schema import HandoverStanza, PersonStanza, Texts

ANY_HANDOVER: Final = "goal"  # the kind of handovers that state none


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source is compiled with, besides its file: its name, the presets and the environment."""

    name: str
    presets: Mapping[str, Any]
    environ: Mapping[str, str]


def compile_source(file: MappingFile, context: SourceContext, report: Diagnostics, destination: str) -> Source:
    """Compile the source of a file. Errors go to the report; the result may be used only if there are none."""
    preset = _preset(file, context, report)
    written = _Merged(file, preset, report)
    verify = compile_verify(file, preset, context.presets, report)
    keys = _secrets(file, preset, context, _forms(file, preset, verify, context), report)
    envelope = _envelope(file, preset, report)
    require, unset = _require(written, context, report)
    return Source(
        name=context.name,
        provider=file.provider,
        verify=verify,
        **_secret_fields(context.name, keys, unset),
        envelope=envelope,
        id_is_signed=preset.id_is_signed and id_is_signed(envelope.id, verify, public_url=written.get("public_url")),
        former=_former(file, preset, envelope, verify, report),
        retry_fields=tuple(preset.retry_fields),
        body=_body(written.get("body"))[0],
        body_field=_body(written.get("body"))[1],
        each=_path(written.get("each"), written.problem("each")),
        require=require,
        public_url=_public_url(written, verify, context, report),
        handshakes=compile_handshakes(file, preset, context.name, context.environ, report),
        quiet=preset.acknowledge == 204,
        visitor=paths(written.get("visitor"), written.problem("visitor")),
        borrowed=paths(preset.borrowed, in_preset(report)),
        **_all_links(file, preset, report),
        links_named_by_provider=bool(preset.links) and preset.links_named_by == "provider",
        destination=destination,
        decimals=preset.decimals,
        values=_values(preset, file, context, report),
        handovers=_handovers(written.get("handover") or (), written.problem("handover")),
        ignored=_ignored(preset, file.provider, in_preset(report)),
        fingerprint=preset.fingerprint,
        objects=preset.objects,
        object_ids=tuple(preset.object_ids),
    )


def _values(preset: Preset, file: MappingFile, context: SourceContext, report: Diagnostics) -> Values:
    """The values of the preset and of the file, which win by name."""
    written = context.presets[file.provider]["values"] if preset.values else {}
    inherited, problems = preset_values(json.dumps(written))
    for where, sentence in problems:
        in_preset(report)(where, sentence)
    own = compile_values(file.values, file.maps, report.below("values"))
    found = merged_values(inherited, own)
    for name, choices in own.choices.items():
        for choice in choices:
            if isinstance(choice.source, Template):
                check_template(choice.source, found, report.below("values", name))
    for name in circular(own, found):
        sentence = f'the value "{name}" needs itself, so it is never there; give this one another name'
        report.suspect(("values", name), sentence)
    return found


class _Merged:
    """Single stanzas, from the file or else from the preset."""

    def __init__(self, file: MappingFile, preset: Preset, report: Diagnostics) -> None:
        self.file, self.preset, self.report = file, preset, report

    def get(self, key: str) -> Any:
        own = getattr(self.file, key)
        return own if own is not None else getattr(self.preset, key)

    def problem(self, key: str) -> Reporter:
        return self.report.below(key) if getattr(self.file, key) is not None else in_preset(self.report)


def _preset(file: MappingFile, context: SourceContext, report: Diagnostics) -> Preset:
    if file.provider == CUSTOM or not report.is_sound("provider"):
        if file.verify is None and report.is_sound("provider") and report.is_sound("verify"):
            report.problem((), 'provider: custom needs "verify", which says how the sender proves who it is')
        return Preset.model_validate({})
    found = context.presets.get(file.provider)
    if found is not None and "cannot_be_set_up" in found:
        report.warn(("provider",), f"{file.provider} cannot be set up: {found['cannot_be_set_up']}")
    if found is None:
        guess = did_you_mean(file.provider, [*context.presets, CUSTOM])
        more = "" if guess else '; docs/providers.md lists them, or write custom and say in "verify" how it signs'
        report.problem(("provider",), f'unknown provider "{file.provider}"{guess or more}')
        return Preset.model_validate({})
    return valid_preset(found, report, ("provider",))


# ----------------------------------------------------------------------------------------------------- envelope


def _envelope(file: MappingFile, preset: Preset, report: Diagnostics) -> EnvelopeSpec:
    written: dict[str, Any] = {}
    for stanzas, problem in ((preset, in_preset(report)), (file, report.below("envelope"))):
        for key in ("type", "id", "time", "order", "account"):
            texts = getattr(stanzas.envelope, key, None)
            if texts is not None:
                read = paths_or_templates if key == "type" else paths
                written[key] = read(texts, below(problem, key))
        _test_flag(stanzas, problem, written)
    return EnvelopeSpec(**written)


def _test_flag(stanzas: Stanzas, problem: Reporter, written: dict[str, Any]) -> None:
    flag = stanzas.envelope.test if stanzas.envelope is not None else None
    if isinstance(flag, TestFlag):
        written["test"] = paths(flag.path, below(problem, "test", "path"))
        if flag.prefix is not None:
            written["test"] = tuple(BeginsWith(path, flag.prefix) for path in written["test"])
        written["test_is"] = tuple(flag.is_) if isinstance(flag.is_, list) else flag.is_
    elif flag is not None:
        written["test"], written["test_is"] = paths(flag, below(problem, "test")), True


def _former(
    file: MappingFile, preset: Preset, envelope: EnvelopeSpec, verify: VerifySpec, report: Diagnostics
) -> FormerSpec | None:
    """How the previous release read type and id; what the file itself states was read as it is now."""
    written = preset.formerly
    if written is None:
        return None
    own, problem = file.envelope or EnvelopeStanza(), in_preset(report)
    event_type = envelope.type if own.type is not None or written.type is None else paths(written.type, problem)
    event_id = envelope.id if own.id is not None or written.id is None else paths(written.id, problem)
    return FormerSpec(event_type, event_id, preset.id_is_signed and id_is_signed(event_id, verify))


# --------------------------------------------------------------------------------------------------- body, links


def _body(written: str | JsonField | None) -> tuple[BodyForm, str | None]:
    if isinstance(written, JsonField):
        return BodyForm.JSON_FIELD, written.json_field
    return BodyForm(written or "json"), None


def _all_links(file: MappingFile, preset: Preset, report: Diagnostics) -> dict[str, Any]:
    """`links` and `people` of the preset and the file; those of a layer come first."""
    inherited, own = _links(preset.links, in_preset(report)), _links(file.links, report.below("links"))
    links = (*own, *inherited) if file.extends else (*inherited, *own)
    return {
        "links": tuple(link for link in links if link.kind not in PERSON_KINDS),
        "people": _people(links, preset.people, in_preset(report)),
    }


def _links(written: Mapping[str, Texts] | list[LinkStanza] | None, problem: Reporter) -> tuple[LinkSpec, ...]:
    if written is None:
        return ()
    if isinstance(written, list):
        return tuple(
            LinkSpec(
                _kind(link.kind, (i, "kind"), problem),
                paths(link.path, below(problem, i, "path")),
                listed(link.event),
            )
            for i, link in enumerate(written)
        )
    return tuple(
        LinkSpec(_kind(kind, (kind, KEY), problem), paths(texts, below(problem, kind)))
        for kind, texts in written.items()
    )


def _people(links: Iterable[LinkSpec], stanzas: Iterable[PersonStanza], problem: Reporter) -> tuple[PersonSpec, ...]:
    """The people among the file's links, and those of the preset."""
    found = [PersonSpec(link.kind, link.paths, link.events, own=True) for link in links if link.kind in PERSON_KINDS]
    for stanza in stanzas:
        only = None if stanza.when is None else Cases((_case("*", stanza.when, stanza.kind, problem),))
        found.append(PersonSpec(stanza.kind, paths(stanza.path, problem), listed(stanza.event), only))
    return tuple(found)


def _kind(kind: str, where: Steps, problem: Reporter) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", kind):
        problem(where, f'the kind of a link is a word such as subscription, order or customer, not "{kind[:40]}"')
    return kind


def _handovers(stanzas: Iterable[HandoverStanza], problem: Reporter) -> Cases:
    """The events with which a site can hand its visitor over: a checkout or a sign-up, not a renewal or a refund.

    `bridge.store.goals.attribution` monitors whether their goals have a visitor.
    """
    return Cases(
        tuple(
            _case(stanza.event, stanza.when, stanza.kind or ANY_HANDOVER, below(problem, i, "when"))
            for i, stanza in enumerate(stanzas)
        )
    )


def _ignored(preset: Preset, provider: str, problem: Reporter) -> Cases:
    """The provider's messages that no rule ever evaluates."""
    default = f"the handshake with which {provider} sets up or tries a webhook"
    return Cases(tuple(_case(item.event, item.when, item.because or default, problem) for item in preset.ignore))


def _case(events: Texts, when: Json, answer: str, problem: Reporter) -> Case:
    types = listed(events)
    return Case(types, ALWAYS if when is None else compile_when(when, problem), answer)


def _path(text: str | None, problem: Reporter) -> CompiledPath | None:
    return next(iter(paths(text, problem)), None)


# ------------------------------------------------------------------------------------------- secrets, requirements

_FORM_OF_KEY: Final = (("whsec", "whsec_"), ("whpk", "whpk_"))


def default_variable(name: str) -> str:
    """The default variable for the secret of a source: `lemon-shop` -> LEMON_SHOP_WEBHOOK_SECRET."""
    return name.upper().replace("-", "_") + "_WEBHOOK_SECRET"


def _forms(file: MappingFile, preset: Preset, verify: VerifySpec, context: SourceContext) -> tuple[str, ...]:
    """Prefixes of secrets: those of the provider, of the preset that `verify` names, and of the form of the key."""
    named = file.verify if isinstance(file.verify, str) else file.verify.preset if file.verify else None
    written = context.presets.get(named, {}).get("secret_form") if named else None
    forms = [form for texts in (preset.secret_form, written) for _, form in numbered(texts)]
    return tuple(dict.fromkeys([*forms, *(form for key, form in _FORM_OF_KEY if key in verify.key)]))


def _secrets(
    file: MappingFile, preset: Preset, context: SourceContext, forms: tuple[str, ...], report: Diagnostics
) -> Secrets:
    entries = file.secret if file.secret is not None else f"${{{default_variable(context.name)}}}"
    for where, text in numbered(entries):
        refuse_malformed(text, report.below("secret", *where))
    found = secrets(listed(entries), context.environ, forms)
    if found.literal and found.usable:
        report.warn(("secret",), "a secret is written in the file itself; write ${NAME} and set it in the environment")
    for sentence in found.placeholders if found.usable else ():
        report.warn(("secret",), sentence)
    for prefix, kind in preset.not_the_secret.items():
        if any(secret.startswith(prefix) for secret in found.usable):
            form = " or ".join(listed(preset.secret_form))
            report.warn(("secret",), f"a secret begins with {prefix}: that is {kind}, the signing secret begins {form}")
    return found


def _secret_fields(name: str, keys: Secrets, unset: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a source about its secrets. unset: unset variables of `require`, which switch the source off."""
    return {
        "secrets": () if unset else keys.usable,
        "secret_names": keys.names,
        "old_secrets": keys.old,
        "secret_error": _secret_error(name, keys, unset),
        "secret_problems": keys.problems,
    }


def _secret_error(name: str, keys: Secrets, unset: tuple[str, ...]) -> str | None:
    """Why the source is off, for people; None if it is not."""
    consequence = f"so nothing can be verified and POST /webhooks/{name} answers 503"
    if unset:
        return f"{' and '.join(unset)} is not set, {consequence}"
    if keys.usable:
        return None
    if keys.problems or keys.placeholders:
        return f"{'; '.join([*keys.problems, *keys.placeholders])}; {consequence}"
    if keys.unset:
        return f"{' and '.join(keys.unset)} is not set, {consequence}"
    return f"its secret is empty, {consequence}"


def _require(
    written: _Merged, context: SourceContext, report: Diagnostics
) -> tuple[tuple[Requirement, ...], tuple[str, ...]]:
    """The equality checks, and the variables that they need and that are not set."""
    requirements, unset = [], []
    problem = written.problem("require")
    for key, value in (written.get("require") or {}).items():
        texts = [text_of(item) or "" for item in listed(value)]
        for text in texts:
            refuse_malformed(text, report.below("require", key))
            unset += [name for name in variables(text) if not context.environ.get(name, "").strip()]
        expected = tuple(filled for text in texts if (filled := expand(text, context.environ)))
        if not expected and not unset:
            problem((key,), f'"require" expects no value at {key}')
        secret = any(map(variables, texts)) or names_secret(key)
        requirements += [Requirement(path, expected, secret) for path in paths(key, _at_key(problem, key))]
    return tuple(requirements), tuple(dict.fromkeys(names_to_show(unset, context.environ)))


def _at_key(problem: Reporter, key: str) -> Reporter:
    return lambda _where, sentence: problem((key, KEY), sentence)


def _public_url(written: _Merged, verify: VerifySpec, context: SourceContext, report: Diagnostics) -> str | None:
    text = written.get("public_url")
    if text is None:
        if signs_its_url(verify):
            report.suspect(
                (), 'this sender signs its URL: set "public_url" to the URL exactly as it is registered there'
            )
        return None
    refuse_malformed(text, report.below("public_url"))
    url = expand(text, context.environ)
    if url is None:
        report.warn(
            ("public_url",),
            f"{' and '.join(names_to_show(variables(text), context.environ))} is not set, so public_url is not known",
        )
    elif not re.fullmatch(r"https?://\S+", url):
        report.problem(("public_url",), '"public_url" is a URL such as https://example.com/webhooks/square')
    return url
