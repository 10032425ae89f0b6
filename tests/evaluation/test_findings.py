"""Which questions a set of models poses, and what a study must say against itself."""

from spicula.evaluation import findings

LINEAR = {"line": "linear", "settings": {}}
CNN = {"line": "cnn", "settings": {"expand": "none", "augment": "none", "epochs": 20}}
AUGMENTED = {"line": "cnn", "settings": {"expand": "rotate-flip", "augment": "none", "epochs": 20}}
DENSE = {"line": "timm:densenet121", "settings": {"weights": "dense.safetensors", "epochs": 15}}
SCRATCH = {"line": "timm:densenet121", "settings": {"weights": None, "epochs": 15}}


def asked(**models):
    return [(one.text, one.model, one.against) for one in findings.questions(models)]


def test_the_three_lines_pose_their_questions():
    assert asked(linear=LINEAR, cnn=CNN, augmented=AUGMENTED, dense=DENSE, scratch=SCRATCH) == [
        ("Does the CNN beat the linear baseline?", "cnn", "linear"),
        ("Does pretraining help?", "dense", "scratch"),
        ("Does augmentation help the CNN?", "augmented", "cnn"),
        ("Does the pretrained dense beat the linear baseline?", "dense", "linear"),
    ]


def test_without_its_twin_pretraining_is_not_asked_about():
    found = findings.questions({"cnn": CNN, "dense": DENSE})
    assert [one.text for one in found] == ["Does the pretrained dense beat the CNN?"]
    assert "this does not tell" in found[0].caveat


def test_twins_that_differ_in_more_say_in_what():
    other = {**SCRATCH, "settings": {**SCRATCH["settings"], "epochs": 40}}
    (question,) = findings.questions({"dense": DENSE, "scratch": other})
    assert question.caveat == "The two models also differ in epochs."
    (fair,) = findings.questions({"dense": DENSE, "scratch": SCRATCH})
    assert fair.caveat == ""


def test_models_that_answer_nothing_pose_nothing():
    assert asked(linear=LINEAR) == asked(dense=DENSE) == asked(augmented=AUGMENTED) == []


def level(value, n=40, patients=20):
    return {
        "levels": {
            "image": {"n": n, "patients": patients, "metrics": {"auc": {"value": value, "low": 0.5, "high": 0.9}}}
        }
    }


def test_the_headline_names_the_highest_and_its_luck():
    said = findings.headline({"linear": level(0.7), "cnn": level(0.8)}, "image")
    assert said.startswith("cnn has the highest AUC, 0.800 (0.500–0.900), on 40 images of 20 patients")
    assert "highest of 2" in said
    assert "not shown to be better than chance" in said
    better = level(0.8)
    better["levels"]["image"]["metrics"]["auc"]["low"] = 0.61
    assert "chance." in findings.headline({"linear": level(0.7), "cnn": better}, "image")
    assert "better than chance" not in findings.headline({"linear": level(0.7), "cnn": better}, "image")
    assert "highest" not in findings.headline({"linear": level(0.7)}, "image")
    assert "No model has an AUC" in findings.headline({"linear": level(None)}, "image")


def warned(**changes):
    values = {"unit": "patient", "synthetic": False, "rejected": 0, "near_duplicates": 0, "unfinished": ()}
    metrics = changes.pop("metrics", {"comparisons": [], "warnings": []})
    return findings.warnings(metrics, **(values | changes))


def test_a_clean_study_has_nothing_against_itself():
    assert warned() == []


def test_each_weakness_is_said():
    assert "say nothing about patients" in warned(synthetic=True)[0]
    assert "flattered" in warned(unit="image")[0]
    assert "1 file could not be used" in warned(rejected=1)[0]
    assert "2 pairs of near-identical images" in warned(near_duplicates=2)[0]
    assert "Training of cnn did not end" in warned(unfinished=["cnn"])[0]


def test_the_warnings_of_the_metrics_become_sentences():
    pair = {"a": "x", "b": "y"}
    levels = {"warnings": ["image level: few", "patient-max level: few", "16 patients"], "comparisons": []}
    assert warned(metrics=levels) == ["Image, patient-max level: few.", "16 patients."]
    metrics = {"warnings": ["8 patients on the test side: wide"], "comparisons": [pair, pair]}
    assert warned(metrics=metrics) == ["8 patients on the test side: wide."]
    metrics["comparisons"] = [pair, {"a": "x", "b": "z"}]
    assert "2 pairs of models are compared" in warned(metrics=metrics)[1]
