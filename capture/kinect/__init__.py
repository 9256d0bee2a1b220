"""A Kinect V2 as a live sensor, through whichever driver the machine has.

    sensor.py        KinectSensor: what the recorder reads
    driver.py        what a driver hands over, and its pictures put upright
    windows.py       the SDK of Windows, through pykinect2, which ``released.py`` makes loadable
    libfreenect2.py  Linux and macOS, through freenect2 or pylibfreenect2; ``usb.py`` says what is plugged in
    pairing.py       which colour and which depth belong together
    calibration.py   the factory's numbers as two cameras

A Kinect V2 delivers what a mirror shows.  Whatever leaves ``driver.py`` is turned back, pictures and cameras alike.
"""
