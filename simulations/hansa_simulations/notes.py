"""Generated clinical admission notes, with planted differences between hospitals and between groups.

No patient stands behind them. A note is a few telegraphic sentences, its words apart by single spaces, drawn by
this process from a seeded numpy generator:

1. The class is one of `CLASSES`, by the hospital's own prior: ``(.4, .3, .2, .1)`` rolled by the hospital's
   number, so that each hospital sees another mix (label shift).
2. The language is ``interpreter`` for 30 % of patients and ``shared`` for the others. A conversation through an
   interpreter leaves one symptom fewer in the note: the difference between groups that a model inherits.
3. The note names 2 to 5 of the class's 30 keywords, one fewer through an interpreter.
4. In 30 % of notes one keyword of another class stands among them: the reason why no model is perfect.
5. The first sentence is in the hospital's house style, with words that no other hospital uses (covariate
   shift); everything else is said in neutral phrases, up to about 24 tokens.

`public_notes` is what a textbook would print: uniform classes, only the first third of each class's keywords,
no misleading ones, no house style, no interpreter. A warm start on it is public and learns a part of the signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CLASSES = ("cardiac", "respiratory", "neurological", "infectious")
LANGUAGES = ("shared", "interpreter")
HOUSE_STYLES = 5
INTERPRETER_SHARE = 0.3
MISLEADING_SHARE = 0.3
PRIOR = (0.4, 0.3, 0.2, 0.1)

KEYWORDS: tuple[tuple[str, ...], ...] = tuple(
    tuple(words.split())
    for words in (
        """angina palpitations murmur asystole arrhythmia ischemia orthopnea bradycardia pericarditis stenosis
        fibrillation infarction cardiomegaly presyncope hypertension edema cardiomyopathy gallop claudication tamponade
        diaphoresis myocarditis regurgitation aneurysm flutter hypotension atherosclerosis valvulopathy syncope tachycardia""",
        """wheezing cough dyspnea sputum asthma bronchitis crackles hypoxia croup emphysema
        stridor pleurisy tachypnea rhonchi hypoxemia hemoptysis pneumothorax hyperinflation bronchospasm aspiration
        atelectasis pneumonitis bronchiectasis desaturation hypercapnia effusion pneumonia apnea hoarseness snoring""",
        """seizure aphasia hemiparesis migraine vertigo numbness tremor ataxia stroke headache
        diplopia dysarthria neuropathy paralysis epilepsy paresthesia confusion photophobia nystagmus spasticity
        dementia encephalopathy concussion hyperreflexia papilledema dysphagia tingling blackout hemianopia unsteadiness""",
        """fever chills sepsis abscess cellulitis influenza rigors mumps malaria tuberculosis
        hepatitis leukocytosis bacteriuria measles shingles bacteremia lymphadenopathy pyrexia erythema impetigo
        pyuria giardiasis candidiasis mononucleosis osteomyelitis gastroenteritis endocarditis lymphangitis
        neutropenia scabies""",
    )
)

_HOUSES: tuple[str, ...] = (
    "clerked in triage bay by registrar .",
    "intake charted by attending , consult paged .",
    "arrival logged at nursing desk under protocol .",
    "seen in emergency cubicle , houseman signed .",
    "transfer accepted by duty physician , dossier opened .",
)
_TEXTBOOK = "a typical patient is described ."

_SYMPTOMS: tuple[str, ...] = (
    "reports {} since {time} .",
    "{person} describes {} , {course} .",
    "complains of {} {degree} .",
    "brought in with {} , {course} .",
    "examination shows {} .",
    "referral letter mentions {} .",
    "noted {} {degree} since {time} .",
)
_NEUTRAL: tuple[str, ...] = (
    "lives {living} , {work} .",
    "{habit} , {habit} .",
    "{relative} {told} .",
    "{action} {thing} {when} .",
    "{action} {thing} and {thing} .",
    "{person} {mood} , {meal} .",
    "{belongings} {stored} .",
    "room {room} , {bed} bed .",
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SLOTS: dict[str, tuple[str, ...]] = {
    "time": _words("monday tuesday wednesday thursday friday saturday sunday yesterday breakfast midnight"),
    "person": _words("patient woman man retiree visitor teacher driver student farmer nurse"),
    "course": ("slowly worse", "now better", "unchanged overall", "comes and goes", "worst at night", "rather sudden"),
    "degree": _words("mildly severely constantly briefly again twice today often"),
    "living": ("alone", "with family", "with partner", "in apartment", "on upper floor", "near hospital",
               "with neighbour", "in village", "in town", "with two cats"),
    "work": ("works full time", "works part time", "recently retired", "seeks employment", "drives daily",
             "walks unaided", "uses a cane", "climbs stairs easily"),
    "habit": ("nonsmoker", "former smoker", "rarely drinks", "sleeps well", "sleeps poorly", "eats regularly",
              "exercises weekly", "no allergies known", "vaccinated as child", "takes vitamins", "weight stable",
              "appetite fair", "prefers tea", "wears glasses"),
    "relative": _words("wife husband daughter son sister brother mother father cousin friend"),
    "told": ("informed by phone", "waits outside", "will visit later", "holds keys", "agrees with plan",
             "asks for update", "gave history"),
    "action": _words("ordered scheduled reviewed repeated requested discussed documented explained updated planned "
                     "confirmed prepared arranged checked"),
    "thing": _words("bloods imaging scan diet fluids paperwork medication observations physiotherapy consent "
                    "discharge transport followup summary plan bloodwork weight chart prescription insurance "
                    "appointment questionnaire"),
    "when": ("this morning", "before noon", "after lunch", "in evening", "tomorrow early", "next shift",
             "within hours", "on arrival"),
    "mood": ("calm", "anxious", "cheerful", "tired", "cooperative", "restless", "quiet", "talkative", "alert"),
    "meal": ("ate soup", "skipped lunch", "drank water", "asked for coffee", "refused dessert", "finished dinner",
             "wants toast"),
    "belongings": _words("wallet jewellery phone coat bag dentures slippers book"),
    "stored": ("kept in locker", "handed to relatives", "left at home", "listed on form"),
    "room": _words("one two three four five six seven eight nine ten eleven twelve"),
    "bed": _words("window door corner middle single shared spare"),
}  # fmt: skip
_TARGET_TOKENS = (19, 23)  # neutral sentences are added until a note is this long


@dataclass(frozen=True)
class Notes:
    """Generated notes, one entry per patient.

    Attributes:
        texts: tokens apart by single spaces, all of them in `vocabulary`.
        classes: of `CLASSES`.
        languages: of `LANGUAGES`.
    """

    texts: tuple[str, ...]
    classes: tuple[str, ...]
    languages: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


def admission_notes(n: int, *, hospital: int, seed: int | Sequence[int]) -> Notes:
    """Notes as one hospital writes them.

    Args:
        n: how many.
        hospital: its number; decides the mix of classes and, modulo `HOUSE_STYLES`, the house style.
        seed: of the numpy generator, an integer or several. The same arguments give the same notes.
    """
    rng = np.random.default_rng([*([seed] if isinstance(seed, int) else seed), hospital])
    prior = np.roll(PRIOR, hospital % len(CLASSES))
    classes = rng.choice(len(CLASSES), size=n, p=prior)
    interpreted = rng.random(n) < INTERPRETER_SHARE
    misled = rng.random(n) < MISLEADING_SHARE
    counts = rng.integers(2, 6, size=n) - interpreted
    shifts = rng.integers(1, len(CLASSES), size=n)
    texts = []
    for label, count, astray, shift in zip(
        classes.tolist(), counts.tolist(), misled.tolist(), shifts.tolist(), strict=True
    ):
        named = _some(rng, KEYWORDS[label], count)
        if astray:
            others = KEYWORDS[(label + shift) % len(CLASSES)]
            named.insert(int(rng.integers(count + 1)), others[rng.integers(len(others))])
        texts.append(_note(rng, named, _HOUSES[hospital % HOUSE_STYLES]))
    return Notes(
        tuple(texts),
        tuple(CLASSES[label] for label in classes),
        tuple(LANGUAGES[int(through)] for through in interpreted),
    )


def public_notes(n: int, seed: int) -> Notes:
    """Textbook notes for a warm start: public, and with a third of each class's keywords only.

    Args:
        n: how many.
        seed: of the numpy generator.
    """
    rng = np.random.default_rng([seed, 0x7E87])  # apart from every hospital's stream
    classes = rng.integers(len(CLASSES), size=n)
    counts = rng.integers(2, 6, size=n)
    texts = []
    for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
        texts.append(_note(rng, _some(rng, textbook_keywords(label), count), _TEXTBOOK))
    return Notes(tuple(texts), tuple(CLASSES[label] for label in classes), (LANGUAGES[0],) * n)


def textbook_keywords(label: int) -> tuple[str, ...]:
    """The keywords of a class that public notes know."""
    return KEYWORDS[label][: len(KEYWORDS[label]) // 3]


def vocabulary() -> tuple[str, ...]:
    """Every token that a note can hold, each once, in an order that never changes. No special tokens."""
    phrases = [*_HOUSES, _TEXTBOOK, *_SYMPTOMS, *_NEUTRAL, *(p for slot in _SLOTS.values() for p in slot)]
    spoken = [token for phrase in phrases for token in phrase.split() if "{" not in token]
    keywords = [word for words in KEYWORDS for word in words]
    return tuple(dict.fromkeys([".", ",", "and", *keywords, *sorted(set(spoken))]))


def _some(rng: np.random.Generator, words: tuple[str, ...], count: int) -> list[str]:
    """Different words, in any order."""
    return [words[i] for i in rng.permutation(len(words))[:count]]


def _note(rng: np.random.Generator, named: list[str], opening: str) -> str:
    """Sentences around keywords, in an order that says nothing about the class."""
    sentences = []
    rest = named
    while rest:
        size = int(rng.integers(2, 4))
        sentences.append(_filled(rng, _SYMPTOMS, " and ".join(rest[:size])))
        rest = rest[size:]
    length = sum(len(sentence.split()) for sentence in (opening, *sentences))
    target = int(rng.integers(*_TARGET_TOKENS, endpoint=True))
    while length < target:
        sentence = _filled(rng, _NEUTRAL, "")
        length += len(sentence.split())
        sentences.insert(int(rng.integers(len(sentences) + 1)), sentence)
    return " ".join([opening, *sentences])


def _filled(rng: np.random.Generator, templates: tuple[str, ...], keywords: str) -> str:
    """One of the templates, its slots filled one by one."""
    tokens = []
    for part in templates[rng.integers(len(templates))].split():
        slot = _SLOTS.get(part.strip("{}")) if part.startswith("{") else None
        if slot is not None:
            tokens.append(slot[rng.integers(len(slot))])
        else:
            tokens.append(keywords if part == "{}" else part)
    return " ".join(tokens)
