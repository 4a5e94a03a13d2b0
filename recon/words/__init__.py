"""Texts about pictures: towers that embed them, banks of captions, maps to text space, captioners, scores of texts."""
