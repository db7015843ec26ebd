"""Reports say what a run's files say; a model's words are taken only when they do too."""

import json

import numpy as np
import pytest
from astropy.table import Column

from jaxspec.agent.facts import Checker
from jaxspec.agent.report import collect, save, template, to_html, to_markdown, write_report
from jaxspec.commands import report as command
from jaxspec.errors import InputError
from jaxspec.io import write_table
from jaxspec.labels import NINE_LABELS
from jaxspec.posterior.results import Posterior


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Files of an agent's run of three stars."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(1)
    middle = np.stack(
        [
            NINE_LABELS.scaled_solar(*row)
            for row in ((5772, 4.44, 0.0), (4700, 2.1, -1.2), (6400, 4.1, -0.004))
        ]
    )
    draws = middle + NINE_LABELS.step * rng.normal(size=(400, 3, 9))
    names = ("sun.fits", "HD 122563", "16_cyg_a_harps.txt")
    posterior = Posterior(
        draws, np.zeros((400, 3)), NINE_LABELS, names, np.array([165.0, 80.4, 294.0]),
        np.array([0.9, 1.1, np.nan]), np.array([0, 12, 0]),
    )  # fmt: skip
    table = posterior.to_table()
    table["cause"] = Column(["ordinary", "binary", "ordinary"])
    table["p_cause"] = np.array([0.98, 1.0, 0.7])
    table["n_fits"] = np.array([4, 6, 4])
    write_table(folder / "labels.fits", table)
    (folder / "metrics.json").write_text(
        json.dumps({"refused": [{}], "seconds": 12.3, "approximation": "LTE"})
    )
    return folder


def test_the_template_says_only_facts(run):
    facts = collect(run)
    summary, text = template(facts)
    assert Checker(facts).check(f"{summary}\n{text}") == []
    assert "Labels of 3 [run.n] spectra" in summary and "1 [run.flagged] were flagged" in summary
    assert "Files refused: 1 [run.refused]" in summary and "binary [run.cause_binary] (1 [" in summary
    assert "sun.fits: effective temperature 57" in text and "LOW_SNR" not in summary
    assert "HD 122563 has the flags ARM_MISSING|BAD_FIT [s2.flags]" in text
    assert "reduced chi-square" not in next(line for line in text.splitlines() if "16_cyg" in line)


def test_true_words_of_a_model_are_taken_and_false_ones_are_not(run):
    facts = collect(run)
    by = {f.key: f for f in facts}
    teff = f"{by['s1.teff'].value:.0f} K [s1.teff]"
    true = f"We observed 3 [run.n] spectra.\n\nThe temperature of sun.fits is {teff}.\n"
    report = write_report(facts, lambda prompt: true, "a model")
    assert report.origin == "a model" and report.summary == "We observed 3 [run.n] spectra."
    for wrong, what in (
        (true.replace("3 [", "4 ["), "is not"),
        (true.replace("sun.fits", "HD 122563"), "HD 122563"),
        ("All is well.", "nothing in the text has a key"),
    ):
        report = write_report(facts, lambda prompt, wrong=wrong: wrong, "a model")
        assert report.origin == "template" and any(what in o.what for o in report.objections)
        assert "rejected" in to_markdown(report)

    def gone(prompt):
        assert "s1.teff" in prompt
        raise TimeoutError

    report = write_report(facts, gone, "a model")
    assert report.origin == "template" and "TimeoutError" in report.objections[0].what


def test_files(run, capsys):
    report = command.run(command.Settings(str(run)), run)
    page = (run / "report.html").read_text()
    assert (
        page == to_html(report, f"Report of {run.name}")
        and 'href="#s1.teff"' in page
        and 'id="s1.teff"' in page
    )
    assert "[" not in (run / "summary.txt").read_text()
    assert "| s1.teff | sun.fits | teff |" in (run / "report.md").read_text()
    assert "report.html" in capsys.readouterr().out
    save(report, run, "again", [("a.png", "a picture")])
    assert '<img src="a.png">' in (run / "report.html").read_text()
    with pytest.raises(InputError, match=r"no labels\.fits"):
        collect(run / "missing")
