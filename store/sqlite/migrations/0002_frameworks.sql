-- What made a model's files, where they tell it, and the folder that they were registered from.
ALTER TABLE models ADD COLUMN framework TEXT NOT NULL DEFAULT '';
ALTER TABLE models ADD COLUMN framework_version TEXT NOT NULL DEFAULT '';
ALTER TABLE models ADD COLUMN folder TEXT NOT NULL DEFAULT '';
