"""The ids that identify one person across several tools: the app's own user id, and the e-mail address.

Pure. A user's key is shared by all sources of a website, `user:<destination>:<mode>:<id>`, and so is an e-mail
address's, which contains an HMAC of the address. A value that may be the id of something else gives no key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bridge.globs import of_type
from bridge.model import MISSING, Key
from bridge.model import VISITOR_PREFIX as PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.model import Document, Envelope, Json, Missing, PersonSpec, Source

    Found = Iterator[tuple[str, bool]]  # an id, and whether it certainly is a user's


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names of the user's id in metadata, without `_` and in lower case; not those for an organisation, order or seller.
_USER: Final = _words(
    """
    userid useruid useruuid uid appuserid externaluserid internaluserid authuserid authid buyerid memberid
    clerkuserid clerkid supabaseuserid supabaseuid supabaseuuid supabaseid firebaseuserid firebaseuid firebaseid
    auth0userid auth0id auth0sub workosuserid workosid kindeuserid kindeid betterauthuserid nextauthuserid
    cognitouserid cognitosub stytchuserid privyuserid
    """
)
_REFERENCE: Final = frozenset({"referenceid", "clientreferenceid"})  # a user's id, or an organisation's
_EXTERNAL: Final = frozenset({"externalid", "externalcustomerid", "customerexternalid"})  # as above
_EMAIL: Final = frozenset({"email", "useremail", "customeremail", "buyeremail", "emailaddress"})

_LABELS: Final = ("name", "label", "key")  # the keys that name each field in a list of fields
_USER_ID: Final = re.compile(r"(?!.*%40)[^\s\x00-\x1f\x7f{}<>\[\]$@\uff20\ufe6b]{1,200}")
_PUNCTUATION: Final = re.compile(r"[\W_]+")
_DIGITS: Final = "0123456789"
UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NOBODY: Final = _words(  # lower case, without punctuation
    """
    null undefined none nil nan na false true guest guestuser guestcheckout guestcustomer anonymous anonymoususer
    anonymouscustomer anon unknown unknownuser nouser nobody notloggedin loggedout unauthenticated user users visitor
    customer buyer member owner me self current new default defaultuser test tester testing testuser testaccount demo
    demouser example exampleuser sample dummy temp tmp foo bar baz foobar abc abc123 xyz xxx asdf johndoe janedoe admin
    administrator root system internal public server api webhook bot cron backend authenticated servicerole empty
    missing unset notset placeholder todo deleted deleteduser removed inactive disabled shared sharedaccount team
    family company everyone someone anyone userid useruuid uid id youruserid currentuser currentuserid
    asd asdf qwerty fake noone external lead prospect walkin manual legacy unregistered signedout pending active free
    basic starter pro premium trial lifetime monthly yearly yes no on off ok web website app ios android mobile desktop
    browser stripe paddle paypal clerk auth0 supabase firebase google github apple facebook email password oauth sso
    string number boolean object function promise symbol array json nouserid noid sessionuserid requserid requestuserid
    12345678123412341234123456789012 12345678123412341234123456789abc deadbeefdeadbeefdeadbeefdeadbeef
    """
)
_MISSING: Final = _words("null undefined nan xxx")  # `user_undefined`: a prefix in front of a missing value
_TEST_WORDS: Final = _words(  # `test-user-1`, `user_test`
    "test tester testing testuser demo dummy example sample guest anonymous anon unknown none nil temp tmp placeholder"
    " deleted missing not public"
)
_FILLERS: Final = _words("user account customer member id uid available found given set")
# A value with one of these prefixes is the id of something else, whatever its field.
_OBJECT_ID: Final = re.compile(
    r"(?:(?:org|organi[sz]ation|team|workspace|tenant|company|order|ord|cart|checkout|invoice|inv|booking|reservation"
    r"|product|plan|price|session|quote|coupon)[_|:-]"
    r"|(?:ws|wsp|prod|cus|cs|sub|in|pi|acct|ctm|txn|ch|py|pm|re|si|dp|evt|seti|plink|promo|sess)_"
    r"|gid://[^/]+/(?!user|customer|member|account|person)"  # what Rails and Shopify call a row of any table
    r"|\d{4}-\d\d-\d\d(?:[t ]|$))",
    re.IGNORECASE,
)
_ANONYMOUS: Final = (
    *("$rcanonymousid:", "anonymous:", "anonymous_", "anonymous-", "anon_", "anon-", "anon:"),
    *("guest_", "guest-", "guest:", "visitor_", "visitor-"),
)
_ADDRESS: Final = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}@[^\s@<>,;:\"()\[\]\\]+\.[^\s@<>,;:\"()\[\]\\.]{2,}")
_ADDRESS_MAX: Final = 254
_ROLES: Final = _words(  # without punctuation
    """
    abuse account accounting accounts admin administration administrator alert alerts all apps ap ar atendimento
    bestellung bestellungen billing board booking bookings bookkeeping buchhaltung careers ceo cfo client clients
    commandes commercial compta comptabilite contabilidad contact contacto contato cto customer customers delivery dev
    developer developers devops donotreply einkauf email engineering enquiries enquiry events everybody everyone
    accueil buero bureau caisse caja cash clientservice empfang kasse kundendienst kundenservice oficina pos recepcion
    rezeption serviceclient verkauf
    facturacion facturas facturation faktura family feedback finance finances founder founders frontdesk general group
    groups hallo hello help helpdesk hey hi hola hostmaster hr info informacion inquiries inquiry invoice invoices
    invoicing it jobs kontakt legal mail mailer mailerdaemon management marketing me media name news newsletter noreply
    nobody notification notifications office operations ops orders pagos partner partners payable payables payment
    payments pedidos post postmaster press privacy procurement purchase purchases purchasing receipts reception
    rechnung rechnungen recruiting reply returns root sales salesteam school secretaria secretary security sekretariat
    service services shared shop soporte staff store studio subscriptions suporte support sysadmin team tech test tester
    testing testuser user users vendas ventas ventes verwaltung web webmaster welcome you your youremail yourname
    anonymous deleted deleteduser guest noemail nomail none null undefined unknown
    """
)
_NUMBERED_ROLES: Final = _words(  # also with a number or a second word: info2, info-de, sales.emea
    "accounts admin billing contact customerservice hello help info noreply office sales support team"
)
_MADE_UP_ROLES: Final = _words(  # entered only because an address was required
    "asd asdf qwerty foo bar foobar abc xyz fake noone nouser nobody example demo temp dummy sample placeholder walkin"
)
_FILLER_LENGTH: Final = 3  # characters, as in `aaa` and `123`
_NUMBER: Final = re.compile(r"0x[0-9a-f]{1,8}|\d{1,8}e\d{1,2}", re.IGNORECASE)  # in addition to values without a letter
_PADDED: Final = "0" * 8 + "-0000" * 3 + "-"  # how a UUID made from a number begins


@dataclass(frozen=True, slots=True)
class Matching:
    """How people are recognised. email_key: the key of the HMAC; None if e-mail addresses are not used for linking."""

    users: bool = True
    email_key: bytes | None = field(default=None, repr=False)


_ANYBODY: Final = Matching(email_key=b"any")


def keys(source: Source, envelope: Envelope, document: Document, matching: Matching) -> Iterator[Key]:
    """The keys of the people whom one event (or element) names, in the order of the file's paths and the preset's."""
    for spec, value in _values(source, envelope, document, matching):
        yield from _keys_in(spec, source, value, envelope, matching)


def owners(source: Source, envelope: Envelope, document: Document) -> Iterator[tuple[str, bool]]:
    """Whose an event is, according to the event itself: each string, and whether it certainly identifies one person.

    Independent of how people are recognised. The address of a role is included, but identifies nobody.
    """
    for spec, value in _values(source, envelope, document, _ANYBODY):
        for identifier in _field_values(value, _EMAIL if spec.kind == "email" else _USER):
            yield str(identifier), any(key.sure for key in _keys_in(spec, source, identifier, envelope, _ANYBODY))
        if spec.kind != "email" and isinstance(value, dict):
            yield from ((str(identifier), False) for identifier in _field_values(value, _REFERENCE | _EXTERNAL))


def _values(
    source: Source, envelope: Envelope, document: Document, matching: Matching
) -> Iterator[tuple[PersonSpec, Json | Missing]]:
    """The value at each place for a person's id: an id, or an object (metadata) that may hold one."""
    for spec in of_type(source.people, envelope.type):
        if not (matching.users if spec.kind != "email" else matching.email_key):
            continue  # not used to recognise people
        if spec.only is not None and spec.only.first_match(document) is None:
            continue
        for path in spec.paths:
            if spec.kind == "reference" and any(path.text == place.text for place in source.visitor):
                continue  # the file says that it is the visitor's id
            value = path.read(document) if spec.own else path.whole(document)
            for item in value if isinstance(value, list) else (value,):
                yield spec, item


def _keys_in(
    spec: PersonSpec, source: Source, value: Json | Missing, envelope: Envelope, matching: Matching
) -> Iterator[Key]:
    scope = f"{source.destination}:{envelope.mode}"
    if spec.kind == "email":
        for address in _field_values(value, _EMAIL):
            if (hashed := email_hash(address, matching.email_key or b"")) is not None:
                yield Key(f"email:{scope}:{hashed}", "email", hashed)
        return
    account = envelope.account
    own = spec.own and not isinstance(value, dict)
    for identifier in _field_values(value, _USER):
        if own or not is_object_id(identifier):
            yield from _user_key(source, identifier, scope, account, own=own, sure=spec.kind == "user")
    if isinstance(value, dict):
        for identifier in _field_values(value, _REFERENCE | _EXTERNAL):
            if not is_object_id(identifier):
                yield from _user_key(source, identifier, scope, account, own=False, sure=False)


def is_object_id(value: Json | Missing) -> bool:
    """Whether a value is by its form the id of something else: `org_1`, `cus_1`."""
    return isinstance(value, str) and _OBJECT_ID.match(value.strip()) is not None


def _field_values(value: Json | Missing, names: frozenset[str]) -> Iterator[Json]:
    """The value; for an object (metadata), the values of its fields with one of these names.

    An object may also be one field of a list: `{"name": "user_id", "value": "user_abc"}`.
    """
    if not isinstance(value, dict):
        if value is not MISSING:
            yield value
        return
    for name, inner in value.items():
        if _normalised(name.removeprefix("cf_")) in names:  # Chargebee's own fields
            yield inner
    if "value" in value and any(_normalised(str(value.get(word) or "")) in names for word in _LABELS):
        yield value["value"]


def is_read(name: str) -> bool:
    """Whether a field of metadata is read as a user's id or an address because of its name."""
    return _normalised(name) in _USER | _REFERENCE | _EMAIL


def _normalised(text: str) -> str:
    return _PUNCTUATION.sub("", text.lower())


def _user_key(
    source: Source, value: Json, scope: str, account: str | None = None, *, own: bool, sure: bool
) -> Iterator[Key]:
    identifier = user_id(value)
    if identifier is None:
        return
    if own or not _is_number(identifier):
        yield Key(f"user:{scope}:{identifier}", "user", identifier, sure)
    elif sure:  # 42 is another person at another tool, and in another account of the same tool
        sender = source.provider if source.links_named_by_provider else source.name
        yield Key(f"user:{scope}:{f'{sender}:{account}' if account else sender}:{identifier}", "user", identifier, sure)


def _is_number(identifier: str) -> bool:
    """Whether an id is a number, however it is written: `42`, `#1007`, `2026-1007`, `0x2a`."""
    if UUID.fullmatch(identifier):
        return identifier.startswith(_PADDED)
    return _NUMBER.fullmatch(identifier) is not None or not any(map(str.isalpha, identifier))


def user(source: Source, value: str) -> Key | None:
    """The live key of a user named by a person or by the site."""
    own = any(spec.own and spec.kind == "user" for spec in source.people)
    return next(_user_key(source, value, f"{source.destination}:live", own=own, sure=True), None)


def user_id(value: Json) -> str | None:
    """A user's id as a string; None if it stands for nobody, is an address, or is not an id."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).strip()
    low, plain = text.lower(), _normalised(text)
    if not _USER_ID.fullmatch(text) or not text.isprintable() or low.startswith((*_ANONYMOUS, PREFIX)):
        return None
    if plain in _NOBODY or not plain.removeprefix("0x").strip("0") or low == "-1" or _is_placeholder(low):
        return None  # a placeholder, or not an id: 0, --
    is_uuid = UUID.fullmatch(text) is not None
    if len(set(plain)) == 1 and (is_uuid or not plain.isdigit()):
        return None  # aaa, 11111111-1111-1111-1111-111111111111
    return low if is_uuid else text


def _is_placeholder(low: str) -> bool:
    """Whether all words of an id stand for nobody: `user_undefined`, `test-user-1`; `user_1` may be a real id."""
    words = {word.rstrip(_DIGITS) for word in _PUNCTUATION.split(low)} - {""}
    words = {"xxx" if len(word) > 2 and set(word) == {"x"} else word for word in words}
    return bool(words & _MISSING or (words & _TEST_WORDS and words <= _TEST_WORDS | _FILLERS))


def is_address(text: str) -> bool:
    """Whether this is an e-mail address, a person's or a role's."""
    return _ADDRESS.fullmatch(text.strip()) is not None


def email_hash(value: Json, key: bytes) -> str | None:
    """The HMAC of a person's e-mail address, trimmed and in lower case; None for a role's (info@) or an invalid one."""
    if not isinstance(value, str):
        return None
    address = value.strip().lower()
    local = address.partition("@")[0].partition("+")[0]
    if len(address) > _ADDRESS_MAX or not _ADDRESS.fullmatch(address) or not address.isprintable():
        return None
    if _is_role(local) or address.endswith(".invalid"):
        return None
    return hmac.new(key, address.encode(), hashlib.sha256).hexdigest()


def _is_role(local: str) -> bool:
    """Whether the part before the @ is a role: `info`, and also `info2`, `no_reply`, `sales.emea` and `team-blue`.

    The role must be the first word (`ana.sales` is a person), and no word may be an initial (`a.p`). Filler for a
    required address counts as a role: `asdf`, `aaa`, `123`, `guest-1`.
    """
    words = [word.strip(_DIGITS) for word in re.split(r"[._-]+", local)]
    (first, *rest), joined = words, "".join(words)
    if (joined in _ROLES or joined in _MADE_UP_ROLES) and (not rest or min(map(len, words)) > 1):
        return True
    repeated = len(joined) >= _FILLER_LENGTH and len(set(joined)) == 1
    if repeated or (not joined and len(local) <= _FILLER_LENGTH) or _is_placeholder(local):
        return True
    return first in _NUMBERED_ROLES or (words[-1] in _NUMBERED_ROLES and max(map(len, words[:-1])) <= 2)


def live_twins(found: tuple[Key, ...]) -> tuple[Key, ...]:
    """The live keys of the people whom a test event names: it only reads them and never teaches them."""
    return tuple(Key(_live(key), key.kind, key.id, key.sure) for key in found if key.is_person)


def _live(key: Key) -> str:
    kind, destination, _, identifier = key.text.split(":", 3)
    return f"{kind}:{destination}:live:{identifier}"
