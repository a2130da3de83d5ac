"""The generator of admission notes does what its page says, note by note."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter

import numpy as np
import pytest

from hansa_simulations import notes
from hansa_simulations.notes import CLASSES, KEYWORDS, LANGUAGES, admission_notes, public_notes, vocabulary

CLASS_OF = {word: CLASSES[i] for i, words in enumerate(KEYWORDS) for word in words}


def keywords(text: str) -> list[str]:
    return [word for word in text.split() if word in CLASS_OF]


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


class TestVocabulary:
    def test_it_has_400_different_words_and_two_marks(self):
        words = vocabulary()
        assert len(words) == len(set(words)) == 400
        assert [word for word in words if not re.fullmatch("[a-z]+", word)] == [".", ","]

    def test_it_never_changes(self):
        known = "841f404837f2"
        assert digest(vocabulary())[:12] == known

    def test_each_class_has_thirty_words_of_its_own(self):
        assert [len(words) for words in KEYWORDS] == [30] * 4
        assert len(CLASS_OF) == 120

    def test_no_phrase_around_the_keywords_holds_one(self):
        spoken = [*notes._HOUSES, notes._TEXTBOOK, *notes._SYMPTOMS, *notes._NEUTRAL]
        spoken += [phrase for slot in notes._SLOTS.values() for phrase in slot]
        assert not set(" ".join(spoken).split()) & set(CLASS_OF)

    @pytest.mark.parametrize("hospital", range(5))
    def test_every_token_of_a_note_is_in_it(self, hospital):
        tokens = {
            token
            for text in admission_notes(300, hospital=hospital, seed=1).texts
            for token in text.split(" ")
        }
        assert tokens <= set(vocabulary())


class TestNotes:
    def test_a_known_answer(self):
        made = admission_notes(2, hospital=3, seed=11)
        assert made.texts[0] == (
            "seen in emergency cubicle , houseman signed . noted tuberculosis and scabies often since friday . "
            "reports giardiasis and arrhythmia since friday ."
        )
        assert digest([made.texts, made.classes, made.languages])[:32] == "3089374440284438edf2060e40d7192d"

    def test_equal_arguments_give_equal_notes(self):
        first, again = (admission_notes(20, hospital=1, seed=(2, 5, 0)) for _ in range(2))
        assert first == again

    @pytest.mark.parametrize(("hospital", "seed"), [(2, (2, 5, 0)), (1, (2, 5, 1)), (1, (3, 5, 0)), (1, 2)])
    def test_other_arguments_give_other_notes(self, hospital, seed):
        assert (
            admission_notes(20, hospital=hospital, seed=seed).texts
            != admission_notes(20, hospital=1, seed=(2, 5, 0)).texts
        )

    def test_lengths(self):
        lengths = [
            len(text.split()) for h in range(5) for text in admission_notes(400, hospital=h, seed=0).texts
        ]
        assert 23 < np.mean(lengths) < 26
        assert min(lengths) >= 17
        assert max(lengths) <= 40

    @pytest.mark.parametrize("hospital", range(6))
    def test_the_hospitals_prior_is_planted(self, hospital):
        made = admission_notes(4000, hospital=hospital, seed=0)
        counts = Counter(made.classes)
        expected = np.roll(notes.PRIOR, hospital % 4)
        for name, share in zip(CLASSES, expected, strict=True):
            assert counts[name] / 4000 == pytest.approx(share, abs=0.04)  # 5 standard errors

    def test_house_styles_are_told_apart_by_their_words(self):
        openings = [admission_notes(50, hospital=h, seed=0).texts for h in range(5)]
        words = [set(text.split(".")[0].split()) - {",", "in", "by"} for text in (o[0] for o in openings)]
        for h, texts in enumerate(openings):
            assert len({text.split(" . ")[0] for text in texts}) == 1
            assert words[h].isdisjoint(set().union(*(w for i, w in enumerate(words) if i != h)))

    def test_an_interpreter_costs_one_keyword(self):
        made = admission_notes(6000, hospital=0, seed=3)
        own = {language: [] for language in LANGUAGES}
        for text, label, language in zip(made.texts, made.classes, made.languages, strict=True):
            own[language].append(sum(CLASS_OF[word] == label for word in keywords(text)))
        assert set(own["shared"]) == {2, 3, 4, 5}
        assert set(own["interpreter"]) == {1, 2, 3, 4}
        assert np.mean(own["shared"]) - np.mean(own["interpreter"]) == pytest.approx(1.0, abs=0.15)
        assert len(own["interpreter"]) / 6000 == pytest.approx(0.3, abs=0.03)

    def test_three_in_ten_mislead_with_one_keyword(self):
        made = admission_notes(6000, hospital=2, seed=4)
        astray = [
            [word for word in keywords(text) if CLASS_OF[word] != label]
            for text, label in zip(made.texts, made.classes, strict=True)
        ]
        assert {len(words) for words in astray} == {0, 1}
        assert np.mean([len(words) for words in astray]) == pytest.approx(0.3, abs=0.03)
        assert len({word for words in astray for word in words}) == 120

    def test_no_keyword_is_said_twice(self):
        made = admission_notes(500, hospital=0, seed=0)
        assert all(len(set(keywords(text))) == len(keywords(text)) for text in made.texts)

    def test_none(self):
        assert len(admission_notes(0, hospital=0, seed=0)) == 0


class TestPublicNotes:
    def test_a_known_answer(self):
        assert digest(public_notes(3, 7).texts)[:32] == "74f9f06e5091786a5e7dcbcf3aa1016d"

    def test_only_textbook_words_and_none_that_mislead(self):
        made = public_notes(2000, 0)
        said = {word for text in made.texts for word in keywords(text)}
        assert said == {word for label in range(4) for word in notes.textbook_keywords(label)}
        assert len(said) == 40
        for text, label in zip(made.texts, made.classes, strict=True):
            assert {CLASS_OF[word] for word in keywords(text)} == {label}

    def test_classes_are_uniform_and_there_is_no_house_style(self):
        made = public_notes(4000, 0)
        assert all(count / 4000 == pytest.approx(0.25, abs=0.04) for count in Counter(made.classes).values())
        assert {text.split(" . ")[0] for text in made.texts} == {"a typical patient is described"}
        assert set(made.languages) == {"shared"}

    def test_they_are_no_hospitals_notes(self):
        public = set(public_notes(500, 0).texts)
        assert all(public.isdisjoint(admission_notes(500, hospital=h, seed=0).texts) for h in range(5))


def test_the_vocabulary_is_registered_under_its_name():
    from importlib.metadata import entry_points

    (point,) = entry_points(group="hansa.vocabularies", name="admission-notes")
    assert point.load() is vocabulary
