"""What belongs to a source but lies beside it: OpenPose's landmarks, masks, the empty room, a Kinect's calibration.

A source (a video file or a folder) enters, paths leave.  Only names are looked at, so that asking is quick.

PROX (Hassan et al., "Resolving 3D Human Pose Ambiguities with 3D Scene Constraints", ICCV 2019) keeps them apart::

    calibration/Color.json, IR.json
    keypoints/NAME/*_keypoints.json
    recordings/NAME/Color/*.jpg, Depth/*.png
"""

from __future__ import annotations

from pathlib import Path

OPENPOSE_SUFFIX = "_keypoints.json"  # how OpenPose names the file of a frame, whatever stands before it
INSIDE_FOLDERS = ("openpose", "keypoints")
VIDEO_ENDINGS = ("_openpose", "_keypoints")  # clip.mp4 -> clip_openpose/
MASK_FOLDERS = ("masks", "mattes")  # inside a folder; clip.mp4 -> clip_masks/
MASK_SUFFIXES = (".png", ".jpg", ".jpeg")
ALPHA_FILMS = (".mov", ".webm", ".mkv", ".mp4")  # clip.mp4 -> clip_alpha.mov
PROX_CALIBRATION = ("Color.json", "IR.json")


def openpose_folder(source: Path) -> Path | None:
    """The folder of OpenPose files that belongs to ``source``, None where there is none."""
    source = source.resolve()
    if source.is_file():
        homes = [source.with_name(source.stem + ending) for ending in VIDEO_ENDINGS]
    else:
        homes = [source / name for name in INSIDE_FOLDERS]
        recording = prox_recording(source)
        if recording is not None:
            homes += [recording / name for name in INSIDE_FOLDERS]
            homes.append(prox_root(recording) / "keypoints" / recording.name)
    return next((home for home in homes if openpose_files(home)), None)


def openpose_files(folder: Path) -> list[Path]:
    """The OpenPose files of a folder, by name; empty for what is no folder."""
    return sorted(folder.glob(f"*{OPENPOSE_SUFFIX}")) if folder.is_dir() else []


def mask_source(source: Path) -> Path | None:
    """The folder or film of masks that belongs to ``source``, None where there is none."""
    source = source.resolve()
    if source.is_file():
        homes = [source.with_name(f"{source.stem}_{name}") for name in MASK_FOLDERS]
        films = [source.with_name(f"{source.stem}_alpha{suffix}") for suffix in ALPHA_FILMS]
    else:
        homes, films = [source / name for name in MASK_FOLDERS], []
    return next((home for home in homes if mask_files(home)), None) or next((f for f in films if f.is_file()), None)


def mask_files(folder: Path) -> list[Path]:
    """The pictures of a folder, by name; empty for what is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in MASK_SUFFIXES and path.is_file())


def background_picture(source: Path) -> Path | None:
    """The picture of the empty room that belongs to ``source``, None where there is none."""
    source = source.resolve()
    stem = source.with_name(f"{source.stem}_background") if source.is_file() else source / "background"
    return next((p for p in (stem.with_name(stem.name + suffix) for suffix in MASK_SUFFIXES) if p.is_file()), None)


def prox_recordings(folder: Path) -> list[Path]:
    """The recordings in PROX's layout in ``folder``: itself, its subfolders, or those of its ``recordings/``."""
    folder = folder.resolve()
    for home in ([folder], *(_subfolders(each) for each in (folder / "recordings", folder))):
        found = [path for path in home if _is_prox(path)]
        if found:
            return found
    return []


def prox_recording(folder: Path) -> Path | None:
    """The one recording in PROX's layout that ``folder`` is or holds, None for none or several."""
    found = prox_recordings(folder)
    return found[0] if len(found) == 1 else None


def prox_root(recording: Path) -> Path:
    """The folder that holds the calibration of a recording in PROX's layout."""
    return recording.parent.parent


def calibration_beside(source: Path) -> Path | None:
    """PROX's calibration beside a Kinect Studio file, which carries none; None where there is none."""
    folder = source.resolve().parent / "calibration"
    is_there = source.suffix.lower() == ".xef" and all((folder / name).is_file() for name in PROX_CALIBRATION)
    return folder if is_there else None


def outside(source: Path) -> dict[str, Path]:
    """The files that count as part of ``source`` though they lie outside of it, by a name that moves with it."""
    source, files = source.resolve(), {}
    folder = openpose_folder(source)
    if folder is not None and not folder.is_relative_to(source):
        files.update({f"openpose/{path.name}": path for path in openpose_files(folder)})
    masks = mask_source(source)
    for path in () if masks is None else [masks] if masks.is_file() else mask_files(masks):
        if not path.is_relative_to(source):
            files[f"masks/{path.name}"] = path
    picture = background_picture(source)
    if picture is not None and not picture.is_relative_to(source):
        files[picture.name.removeprefix(source.stem + "_")] = picture
    home = calibration_beside(source) if source.is_file() else None
    if home is not None:
        files.update({f"calibration/{n}": home / n for n in PROX_CALIBRATION})
    recording = prox_recording(source) if source.is_dir() else None
    if recording is not None:
        home = prox_root(recording) / "calibration"
        if not home.is_relative_to(source):
            files.update({f"calibration/{n}": home / n for n in PROX_CALIBRATION if (home / n).is_file()})
    return files


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    except OSError:  # what cannot be looked into is not ours
        return []


def _is_prox(folder: Path) -> bool:
    # Capitals are told apart even where the file system does not: color/ is another layout.
    names = {path.name for path in _subfolders(folder)}
    if "Color" not in names:
        return False
    return bool(names & {"Depth", "BodyIndex", "BodyIndexColor", "Infrared"}) or any(
        (folder / "Color").glob("*frame_*__*")
    )
