"""A synthetic performer filmed by a simulated Kinect V2: the default subject, with ground truth."""
