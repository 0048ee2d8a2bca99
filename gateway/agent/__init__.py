"""The device's side: enrolment, renewal, posture reports."""
