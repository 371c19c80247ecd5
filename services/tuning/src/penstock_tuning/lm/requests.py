"""Free-form messages for the tuning phase: somebody writes, and something is asked about the message.

A message has a person and one or two matters; it is answered, confirmed, summed up, or one detail is asked for.
The last matter and the last wording of each list are for held-out samples only.
"""

from __future__ import annotations

from penstock_tuning.lm import facts
from penstock_tuning.lm.generator import Sample, Source, carrier_text, upper_first, with_system

# (what the message says, what the answer says, the summary's verb phrase); {x} is the detail, {t} a topic.
_MATTERS: dict[str, list[tuple[str, str, str, str]]] = {
    "en": [
        ("EMAIL_ADDRESS", "please send {t} to {x}", "we will send {t} to {x}", "wants {t} sent to {x}"),
        ("EMAIL_ADDRESS", "my e-mail address is {x}", "we will write to {x}", "uses the e-mail address {x}"),
        ("EMAIL_ADDRESS", "my new email is {x}", "your new email is {x}", "has the new email {x}"),
        ("PHONE_NUMBER", "please call me back on {x}", "we will call you back on {x}", "wants a call on {x}"),
        ("PHONE_NUMBER", "my phone is {x}", "your phone is {x}", "has the phone {x}"),
        ("LOCATION", "I have moved to {x}", "your new address is {x}", "has moved to {x}"),
        ("LOCATION", "I need a hotel in {x}", "we will find a hotel in {x}", "needs a hotel in {x}"),
        ("DATE_TIME", "I would like to come on {x}", "we will see you on {x}", "wants to come on {x}"),
        ("DATE_TIME", "I was born on {x}", "your date of birth is {x}", "was born on {x}"),
        ("ORGANIZATION", "I work at {x}", "you work at {x}", "works at {x}"),
        ("CREDIT_CARD", "please charge my card {x}", "we will charge the card {x}", "pays with the card {x}"),
        ("IBAN_CODE", "please refund the money to {x}", "the refund goes to {x}", "wants the refund on {x}"),
        ("US_SSN", "my SSN is {x}", "your SSN is {x}", "has the SSN {x}"),
        (
            "IP_ADDRESS",
            "I cannot log in from {x}",
            "we will look at the log for {x}",
            "cannot log in from {x}",
        ),
        ("URL", "I found this on {x}", "we will look at {x}", "points to {x}"),
        ("CRYPTO", "I paid from {x}", "the payment came from {x}", "paid from {x}"),
        ("LOCATION", "{t} must go to {x}", "{t} will go to {x}", "wants {t} in {x}"),
    ],
    "de": [
        ("EMAIL_ADDRESS", "bitte senden Sie {t} an {x}", "wir senden {t} an {x}", "möchte {t} an {x}"),
        ("EMAIL_ADDRESS", "meine E-Mail ist {x}", "wir schreiben an {x}", "hat die E-Mail {x}"),
        (
            "PHONE_NUMBER",
            "bitte rufen Sie mich unter {x} zurück",
            "wir rufen Sie unter {x} zurück",
            "wünscht einen Rückruf unter {x}",
        ),
        ("LOCATION", "ich wohne jetzt in {x}", "Ihre neue Adresse ist {x}", "wohnt jetzt in {x}"),
        ("DATE_TIME", "ich komme am {x}", "wir sehen Sie am {x}", "kommt am {x}"),
        (
            "IBAN_CODE",
            "bitte überweisen Sie auf {x}",
            "wir überweisen auf {x}",
            "möchte eine Überweisung auf {x}",
        ),
        ("ORGANIZATION", "ich arbeite bei {x}", "Sie arbeiten bei {x}", "arbeitet bei {x}"),
    ],
}
_INTROS = {
    "en": ["my name is {p}", "I'm {p}", "I am {p}", "this is {p}", "{p} here", "you are talking to {p}"],
    "de": ["mein Name ist {p}", "ich bin {p}", "hier ist {p}", "ich heiße {p}", "hier schreibt {p}"],
}
_GREETINGS = {
    "en": ["Hi, ", "Hello, ", "Dear team, ", "", "Good morning, "],
    "de": ["Hallo, ", "Guten Tag, ", ""],
}
_REPLY = {
    "en": [
        "",
        "Please write a short confirmation.",
        "Write a polite reply.",
        "Please answer.",
        "Please confirm.",
        "Reply to this message.",
        "What do you answer?",
    ],
    "de": [
        "",
        "Bitte antworten Sie.",
        "Bitte bestätigen Sie.",
        "Schreibe eine kurze Antwort.",
        "Was antworten Sie?",
    ],
}
_SUMMARY = {
    "en": ["Summarize: {m}", "Summarize this message: {m}", "{m}\nSummarize in one sentence.", "Sum up: {m}"],
    "de": ["Fasse zusammen: {m}", "{m}\nFasse das zusammen.", "Kurze Zusammenfassung: {m}"],
}
_OPEN = {"en": "Hello {p}, thank you for your message. ", "de": "Guten Tag {p}, danke für Ihre Nachricht. "}
_DETAIL = {
    "EMAIL_ADDRESS": "e-mail address",
    "PHONE_NUMBER": "phone number",
    "CREDIT_CARD": "card number",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP address",
    "URL": "link",
    "US_SSN": "social security number",
    "PERSON": "person",
    "LOCATION": "place",
    "ORGANIZATION": "company",
    "DATE_TIME": "date",
    "CRYPTO": "wallet",
}
_DETAIL_ASK = [
    "Which {d} is in this text? {m}",
    "Find the {d}: {m}",
    "{m}\nWhat is the {d}?",
    "Give me the {d} in: {m}",
]


def request(source: Source) -> Sample:
    """A message with a person and matters, answered or summed up."""
    language = "en" if source.chance(0.75) else "de"
    person = source.placeholder("PERSON")
    topic = source.any(facts.TOPICS[language])
    marks = [person]
    said: list[str] = []
    back: list[str] = []
    summary: list[str] = []
    for _ in range(source.any((1, 1, 2, 2, 3))):
        kind, says, answers, verb = source.pick(_MATTERS[language])
        mark = source.placeholder(kind)
        if mark not in marks:
            marks.append(mark)
            for phrase, parts in ((says, said), (answers, back), (verb, summary)):
                parts.append(phrase.format(x=mark, t=topic))
    joiner = " and " if language == "en" else " und "
    intro = source.pick(_INTROS[language]).format(p=person)
    greeting = source.any(_GREETINGS[language])
    first = f"{intro}{source.any((joiner, ', ', '. '))}{said[0]}"
    message = upper_first(greeting + ". ".join([first, *map(upper_first, said[1:])])) + "."
    message = ". ".join(upper_first(part) for part in message.split(". "))
    if source.chance(0.3):
        question = source.pick(_SUMMARY[language]).format(m=message)
        answer = f"{person} {joiner.join(summary)}."
    else:
        question = f"{message} {source.pick(_REPLY[language])}".strip()
        answer = _OPEN[language].format(p=person) + " ".join(upper_first(part) + "." for part in back)
    return Sample("request", with_system(source, [("user", question), ("assistant", answer)]), tuple(marks))


def detail(source: Source) -> Sample:
    """One detail out of a text with several."""
    kinds = source.random.sample(sorted(_DETAIL), source.any((1, 2, 3, 4)))
    marks = source.placeholders(len(kinds), kinds)
    wanted = source.random.randrange(len(kinds))
    text = carrier_text(source, "en", marks)
    question = source.pick(_DETAIL_ASK).format(d=_DETAIL[kinds[wanted]], m=text)
    answer = f"The {_DETAIL[kinds[wanted]]} is {marks[wanted]}."
    return Sample("detail", with_system(source, [("user", question), ("assistant", answer)]), (marks[wanted],))
