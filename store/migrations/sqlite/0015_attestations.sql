-- What a key signs that is no document, the manifests of evidence bundles, is among its uses, and may be a part of them only.
ALTER TABLE key_uses ADD COLUMN attested INTEGER NOT NULL DEFAULT 0;
