"""Device certificates: the internal PKI, enrolment, verification, posture."""
