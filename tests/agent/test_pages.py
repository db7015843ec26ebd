"""A page shows what the trace says, and nothing that a name could smuggle into it."""

from jaxspec.agent.pages import brief, write_page


def test_a_page_holds_the_trace_escaped(tmp_path):
    step = {
        "star": "<b>x</b>", "step": 1, "tool": "mask", "arguments": {"low": 1.0}, "hypothesis": "a & b",
        "reason": "<script>", "observation": {"seen": 1},
    }  # fmt: skip
    end = {
        "star": "<b>x</b>", "end": "done", "cause": "binary", "p_cause": 0.987, "labels_from": "binary",
        "reason": "two velocities", "n_fits": 3, "n_steps": 1, "labels": [5772.4, 0.1234],
        "errors": [50.0, 0.05],
    }  # fmt: skip
    path = write_page(
        tmp_path / "s" / "index.html", [step, end], ["teff", "fe_h"], ["K", "dex"], "OK", ["1_a.png"]
    )
    text = path.read_text()
    assert "<script>" not in text and "&lt;b&gt;x&lt;/b&gt;: binary" in text and "a &amp; b" in text
    assert "<td>5772</td><td>50</td>" in text and "<td>0.123</td><td>0.050</td>" in text
    assert '<img src="1_a.png"' in text and "lines of two stars" in text and "0.987" in text


def test_observations_are_cut_for_reading():
    assert brief({"a": 1}) == '{"a": 1}' and len(brief({"a": "x" * 900})) == 400
