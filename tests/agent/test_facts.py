"""The checker: true texts pass, texts with one thing altered do not."""

import re

import numpy as np
import pytest

from jaxspec.agent.facts import KEY, Checker, Fact, agrees, sentences

STARS = ("HD 122563", "beta_vir_harps_1.txt", "CS 22892-052", "16_cyg_a.fits", "NGC 6752 42")
CAUSES = ("binary", "ordinary", "wrong velocity", "emission")


@pytest.fixture(scope="module")
def facts():
    rng = np.random.default_rng(4)
    out = [Fact("run.n", 5.0, "", "n_stars"), Fact("run.flagged", 2.0, "", "n_flagged")]
    for i, star in enumerate(STARS, start=1):
        out += [
            Fact(f"s{i}.teff", float(rng.uniform(4100, 6900)), "K", "teff", star),
            Fact(f"s{i}.e_teff", float(rng.uniform(15, 95)), "K", "teff", star),
            Fact(f"s{i}.logg", float(rng.uniform(1, 5)), "dex", "logg", star),
            Fact(f"s{i}.fe_h", float(rng.uniform(-2.4, -0.06)), "dex", "fe_h", star),
            Fact(f"s{i}.velocity", float(rng.uniform(-90, 90)), "km/s", "velocity", star),
            Fact(f"s{i}.snr", float(rng.uniform(20, 290)), "", "snr", star),
            Fact(f"s{i}.cause", CAUSES[i % 4], "", "cause", star),
        ]
    return out


def texts(facts, n, seed):
    """True sentences in several manners, none of them the template's: text and the star that it is about."""
    rng = np.random.default_rng(seed)
    by = {f.key: f for f in facts}

    def show(key, digits):
        f = by[key]
        return f"{f.value:.{digits}f}{' ' + f.unit if f.unit else ''} [{key}]"

    out = []
    for k in range(n):
        i, j = rng.permutation(5)[:2] + 1
        a, b = STARS[i - 1], STARS[j - 1]
        hot, cold = (i, j) if by[f"s{i}.teff"].value > by[f"s{j}.teff"].value else (j, i)
        manner = k % 6
        if manner == 0:
            text = (
                f"For {a} the effective temperature is {show(f's{i}.teff', 0)}, with an error of "
                f"{show(f's{i}.e_teff', 0)}, and its surface gravity is {show(f's{i}.logg', 2)}."
            )
        elif manner == 1:
            text = f"{a} has a metallicity of {show(f's{i}.fe_h', 2)} (S/N {show(f's{i}.snr', 0)})."
        elif manner == 2:
            text = (
                f"{STARS[hot - 1]} at a temperature of {show(f's{hot}.teff', 0)} is hotter than "
                f"{STARS[cold - 1]} at {show(f's{cold}.teff', 0)}."
            )
        elif manner == 3:
            cause = f"the cause is {by[f's{i}.cause'].value} [s{i}.cause]"
            text = f"The radial velocity of {a} is {show(f's{i}.velocity', 1)}; {cause}."
        elif manner == 4:
            text = f"Of {show('run.n', 0)} spectra, {show('run.flagged', 0)} were flagged."
            text += f" {a}: log g {show(f's{i}.logg', 1)}."
        else:
            first, second = show(f"s{i}.fe_h", 1), show(f"s{j}.fe_h", 2)
            text = f"With HR10 and HR21, {a} gives [Fe/H] = {first}, and {b} gives {second}."
        out.append(text)
    return out


def altered(text, rng, facts):
    """The text with one number, unit, sign, star or comparison changed; and which."""
    numbers = [m for m in re.finditer(r"-?\d+\.?\d*(?=( K| dex| km/s)? \[)", text)]
    ways = ["number", "star"]
    ways += ["unit"] * bool(re.search(r" (K|dex|km/s) \[", text)) + ["sign"] * bool(numbers)
    ways += ["comparison"] * ("hotter than" in text) + ["cause"] * ("the cause is" in text)
    way = ways[rng.integers(len(ways))]
    if way == "number":
        m = numbers[rng.integers(len(numbers))]
        digits = [i for i, c in enumerate(m[0]) if c.isdigit()]
        place = digits[rng.integers(len(digits))]
        new = str((int(m[0][place]) + rng.integers(2, 9)) % 10)
        return text[: m.start()] + m[0][:place] + new + m[0][place + 1 :] + text[m.end() :], way
    if way == "unit":
        m = list(re.finditer(r" (K|dex|km/s) \[", text))
        m = m[rng.integers(len(m))]
        others = [u for u in ("K", "dex", "km/s", "") if u != m[1]]
        return text[: m.start()] + f" {others[rng.integers(3)]}".rstrip() + " [" + text[m.end() :], way
    if way == "sign":
        signed = [m for m in numbers if float(m[0]) != 0.0]
        m = signed[rng.integers(len(signed))]
        return text[: m.start()] + (m[0][1:] if m[0][0] == "-" else "-" + m[0]) + text[m.end() :], way
    if way == "star":
        inside = [s for s in STARS if s in text]
        old = inside[rng.integers(len(inside))]
        new = [s for s in STARS if s not in inside]
        return text.replace(old, new[rng.integers(len(new))]), way
    if way == "cause":
        old = next(c for c in CAUSES if f"is {c} [" in text)
        return text.replace(old, next(c for c in CAUSES if c != old)), way
    return text.replace(
        "hotter than", ("cooler than", "as hot as or cooler than", "fainter than")[rng.integers(3)]
    ), way


def test_two_hundred_true_texts_pass_and_two_hundred_altered_ones_do_not(facts):
    checker = Checker(facts)
    true = texts(facts, 200, seed=1)
    passed = [not checker.check(text) for text in true]
    assert np.mean(passed) >= 0.98, [t for t, ok in zip(true, passed, strict=True) if not ok][:3]
    rng, let_through, ways = np.random.default_rng(2), [], set()
    for text in texts(facts, 200, seed=3):
        changed, way = altered(text, rng, facts)
        ways.add(way)
        if changed != text and not checker.check(changed):
            let_through.append((way, changed))
    assert ways == {"number", "unit", "sign", "star", "comparison", "cause"}
    assert let_through == []


@pytest.mark.parametrize(
    "text",
    [
        "HD 122563 is a lovely star of 4600 K.",  # no key
        "HD 122563 has 3 companions.",
        "HD 122563 has three companions.",
        "HD 122563 is a binary.",
        "Its temperature is {s1.teff}.",  # whose?
        "The surface gravity of HD 122563 is {s1.teff}.",
        "HD 122563 is warmer than expected at {s1.teff}.",
        "HD 122563 at {s1.teff} is stranger than CS 22892-052 at {s3.teff}.",
        "HD 122563 has {s1.teff} and [s1.mass].",
    ],
)
def test_what_cannot_be_traced_is_rejected(facts, text):
    for fact in (fact for fact in facts if fact.unit == "K"):
        text = text.replace(f"{{{fact.key}}}", f"{fact.value:.0f} K [{fact.key}]")
    assert Checker(facts).check(text)


def test_superlatives_are_of_all_stars(facts):
    own = {f.star: f for f in facts if f.key.endswith(".teff") and not f.key.endswith("e_teff")}
    best, worst = (f(own.values(), key=lambda x: x.value) for f in (max, min))
    say = "{} is the hottest star, with a temperature of {:.0f} K [{}]."
    assert not Checker(facts).check(say.format(best.star, best.value, best.key))
    assert Checker(facts).check(say.format(worst.star, worst.value, worst.key))


def test_rounding():
    assert agrees("5772", 5771.6) and not agrees("5772", 5771.4) and agrees("5,772", 5772.0)
    assert agrees("-0.04", -0.0351) and not agrees("0.04", -0.0351) and agrees("−0.04", -0.04)
    assert agrees("0.0", -0.03) and not agrees("5770", 5772.0)
    assert sentences("One. Two.\n- Three\n| a | b |\n|---|---|") == ["One.", "Two.", "- Three", "| a | b |"]
    assert KEY.findall("5772 K [s1.teff]") == ["s1.teff"]
