"""The asv suite: ``track_*`` counts are deterministic, ``time_*`` stand beside a peer."""
