-- procid's history, what schema version 3 changes: images are found by name.

CREATE INDEX images_entity ON images (entity);
