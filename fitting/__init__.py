"""The body that explains what the sensor saw: body model, landmarks, inverse kinematics, keyframes."""
