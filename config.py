"""The paper's constants with their sections and units, and nothing else."""

from fergi.features import FrameLimits

# Valid frames (Section 5.1, Appendix C). Bounds are included.
FRAME_LIMITS = FrameLimits(
    minimum_detection_confidence=0.9,  # face detection confidence score, 0–1
    pitch_ratio=(0.55, 0.85),  # pitch indicative ratio, eq. 19
    yaw_ratio=(0.3, 0.7),  # yaw indicative ratio, eq. 18
)

# Valid clips (Section 5.1): at most 20 % of the frames excluded.
MINIMUM_VALID_SHARE = 0.8

# Moving window (Section 5.2, eq. 1), seconds: 3 frames at 30 FPS.
WINDOW_SECONDS = 0.1

# Exclusion of participants. Section 6.2.1 gives reasons (bangs, camera angle) but no rule; the rule is the release's:
# out if this percentile of the AU4 activation of a participant's baseline clips reaches this limit (intensity units).
BASELINE_AU4_PERCENTILE = 80
BASELINE_AU4_LIMIT = 0.5

# The leave-one-participant-out search (``fergi.preference.grid_search.search_settings``). Grids: first, last, step.
PREFERENCE_SEARCH = {
    "ensemble_weights": (0.0, 1.0, 0.1),  # each weight of eq. 7, summing to 1 (Section 6.2.3)
    "decays": (0.1, 2.0, 0.1),  # k of eqs. 3–4, per intensity unit (Section 6.2.4)
    "au4_weights": (0.0, 1.0, 0.1),  # w_AU4 of eq. 5 (Section 6.2.4)
    "thresholds": (0.0, 1.0, 0.02),  # d (Section 6.2.4)
    "integration_weights": (0.0, 10.0, 0.1),  # a of eq. 10 (Section 6.2.5)
    "incorrect_penalty": 2,  # of eq. 9
}

# AU model (Section 4, Appendix B.3) --------------------------------------------------------------------------------
AU_TRAINING = {  # see ``TrainingSettings``
    "epochs": 3,
    "batch_size": 64,
    "last_layer_rate": 1e-4,  # learning rates of Adam
    "rate": 1e-5,
    "weight_decay": 5e-4,
    "seed": 42,  # the release's
}
# Augmentation: the paper does not tell it; the release's random crop, after a flip of every other picture.
AU_CROP = {
    "scale": (0.9, 1.0),  # share of the picture's area
    "ratio": (19 / 20, 20 / 19),  # width by height
}
# End of AU model ---------------------------------------------------------------------------------------------------

# Image tables (Section 6.2.3) --------------------------------------------------------------------------------------
# Whose answers on issues a fault of the survey's page spoilt (a footnote of Section 3.2.3 of the paper).
UNRELIABLE_ISSUES = ("001", "002", "004", "005", "006", "007", "008")
# End of image tables -----------------------------------------------------------------------------------------------

# Valence models (``fergi.preference.model``) -------------------------------------------------------------------------
# Options of their fits. FAU-Net is the authors' later method (not in the paper), the linear model is ours; see
# docs/preference_models.md.
VALENCE_MODELS = {
    "aucomb": PREFERENCE_SEARCH,
    "fau-net": {"steps": 300, "rate": 1e-3, "penalty": 1e-4, "seed": 0},  # Adam's steps and learning rate; L1
    "linear": {"ridge": 0.3},  # λ, of squared weights of columns with root mean square 1
}
# End of valence models ---------------------------------------------------------------------------------------------

# Recordings (cut_clips.py) -----------------------------------------------------------------------------------------
# Evidence beyond ``refuse`` leaves a session uncut; beyond ``flag`` it is cut with a warning.
#   matched_share   least share of recorded frames that the page's log confirms. In good recordings of 20 s it is 0.99
#                   or more; overloaded machines came down to 0.78 with the right zero, and a zero that is one frame off
#                   leaves a third or less.
#   repeated_share  largest share of a clip's frames that repeat the one before. 0.1 is what a busy machine costs; at
#                   0.5 the camera gives 15 FPS, and eq. 1 still averages two pictures or more.
#   oldest_frame    most seconds by which the newest frame may be older than its moment: a fifth of a clip of 5 s, as
#                   many frames as Section 5.1 lets be excluded.
RECORDING_LIMITS = {
    "refuse": {"matched_share": 0.7, "repeated_share": 0.55, "oldest_frame": 1.0},
    "flag": {"matched_share": 0.95, "repeated_share": 0.1, "oldest_frame": 0.2},
}
# End of recordings -------------------------------------------------------------------------------------------------

# Tuning of scorers -------------------------------------------------------------------------------------------------
SCORER_TUNING = {  # see ``TuningSettings``; the paper does not tune
    "epochs": 6,
    "batch_size": 32,
    "rate": 1e-4,
    "weight_decay": 0.01,
    "anchor": {"logistic": 0.05, "triplet": 0.005},
    "margin": 0.3,  # of Social Reward
    "rank": 8,
    "alpha": 8,
    "seed": 0,
}
# End of tuning of scorers ------------------------------------------------------------------------------------------

# Tuning of generators ----------------------------------------------------------------------------------------------
GENERATOR_TUNING = {  # see ``GeneratorSettings``; the paper does not tune
    "steps": 1000,
    "batch_size": 16,
    "rate": 1e-5,
    "weight_decay": 0.01,
    "beta": {"dpo": 5000, "kto": 1000, "refl": 5000},  # as published (Diffusion-DPO, Diffusion-KTO); not used by ReFL
    "rank": 8,
    "alpha": 8,
    "empty_prompts": 0.2,  # Diffusion-DPO
    "liked_share": 0.8,  # Diffusion-KTO
    "evaluate_every": 100,
    "evaluated_pairs": 128,
    "sample_prompts": 4,
    "sample_steps": 30,
    "guidance": 7.5,
    "seed": 0,
}
# End of tuning of generators ---------------------------------------------------------------------------------------

# Synthesis of faces ------------------------------------------------------------------------------------------------
FACE_SYNTHESIS = {  # of synthesise_faces.py; the community's values for SynFER, since its authors published no code
    "steps": 50,  # of DDIM
    "scale": 7.5,  # of classifier-free guidance
    "adapter_scale": 1.0,  # λ of the AU adapter; 1 as trained
    "guidance_step": 0.1,  # λ of the semantic guidance, in units of the text embedding
    "guidance_first": 0.6,  # share of the steps before it: the 15th of the 35 that a layout leaves
    "layout_share": 0.7,  # share of the steps that a layout is inverted: 35 of 50
    "seed": 0,
}
# End of synthesis of faces -----------------------------------------------------------------------------------------

# Training of face generators ---------------------------------------------------------------------------------------
# See ``FaceGeneratorSettings``. SynFER (arXiv 2410.09865) tells the loss and what is frozen; rate, batch, passes and
# the share of empty texts are those of a reproduction by others, the share of AUs that are not told is ours.
FACE_GENERATOR_TRAINING = {
    "batch_size": 32,
    "rate": 1e-4,
    "weight_decay": 0.01,
    "empty_texts": 0.05,
    "dropped_units": 0.1,
    "evaluate_every": 500,
    "evaluated_pictures": 256,
    "sample_steps": 30,
    "guidance": 5.0,
    "seed": 0,
}
FACE_GENERATOR_PASSES = 5  # over the pictures, where --steps is not given
# The small base model (--pipeline small) is ours, and so is what an adapter on it takes.
SMALL_FACE_GENERATOR_TRAINING = {"steps": 1000, "batch_size": 64, "rate": 1e-2, "guidance": 2.0}
# End of training of face generators --------------------------------------------------------------------------------

# Correction of labels ----------------------------------------------------------------------------------------------
# SynFER tells neither; these are ours, chosen on drawn faces.
LABEL_TIMESTEP = 1  # of the noise in which the UNet sees a picture; the paper inverts to 1
LABEL_HEAD = {  # see ``HeadSettings``
    "steps": 1000,
    "batch_size": 32,
    "rate": 3e-3,
    "weight_decay": 0.05,
    "width": 64,
    "seed": 0,
}
LABEL_HEAD_PICTURES = 10_000  # to train on at most; in Stable Diffusion 1.5 features of one take 1 MB on the disk
LABEL_THRESHOLDS = {  # beyond which a label becomes the estimates' mean
    "intensity": 2.5,  # between label and mean, of 5
    "probability": 0.5,  # by which another expression is more probable
}
# End of correction of labels ---------------------------------------------------------------------------------------
