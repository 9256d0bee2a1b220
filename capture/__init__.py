"""What the sensor saw.  THE CONVENTIONS of the whole project are on this page.

Frames of reference
    color, depth   the two cameras; OpenCV axes: +x right, +y down, +z forward
    body           the body model's own frame: +x to the body's left, +z up, the face looks along -y; metres
    world          gravity-aligned, +z up, the floor at z = 0

Pixels
    Pixel (0, 0) has its centre at (0.5, 0.5).  ``image_wh`` is (width, height); arrays are (H, W).
    Foreign files that put the first centre at (0, 0) are shifted by the importer, nowhere else.
    uv in [0, 1], v down: uv indexes a texture like an image, texel (0, 0) has its centre at (0.5 / T, 0.5 / T).

Units
    Metres, seconds, radians.  ``_mm`` only for raw depth (uint16, 0 = no return) and for reported residuals.
    Millimetres become metres in ``camera.meters`` and nowhere else.

Colour and alpha
    RGB, uint8 0..255 in files and frames, float32 in [-1, 1] inside networks.  Alpha is float32, 1 = subject.

Names
    what_frame_unit (``joints_color_m``, ``timeout_s``).  Transforms read to_from_from so that neighbours cancel:
    ``points_color_m = transform(color_from_depth, points_depth_m)``.

Missing is NaN or None, never 0, -1 or {}.  Frame indices are never renumbered.
"""
