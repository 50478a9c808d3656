"""Makes the files of this folder with pyHanko, and writes down what pyHanko's own validation says of each signature.

    python3 -m venv venv && venv/bin/pip install pyhanko==0.38.0 && venv/bin/python make.py

Everything is new each time: keys, certificates and times. The test needs no pyHanko.
"""

import datetime
import io
import json

from asn1crypto import keys as asn1_keys, pem, x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pyhanko.pdf_utils import generic, misc
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign import fields, signers, timestamps
from pyhanko.sign.validation import validate_pdf_signature
from pyhanko_certvalidator import ValidationContext
from pyhanko_certvalidator.registry import SimpleCertificateStore

NAME = generic.pdf_name
START = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) - datetime.timedelta(hours=1)


def issue(common, key, issuer, issuer_key, ca=False, purpose=None):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    b = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject).public_key(key.public_key())
    b = b.serial_number(x509.random_serial_number()).not_valid_before(START).not_valid_after(START + datetime.timedelta(days=7300))
    b = b.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    b = b.add_extension(x509.KeyUsage(not ca, not ca and not purpose, False, False, False, ca, ca, False, False), critical=True)
    if purpose:
        b = b.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
    return b.sign(issuer_key or key, hashes.SHA256())


def loaded(cert):
    return asn1_x509.Certificate.load(cert.public_bytes(serialization.Encoding.DER))


def private(key):
    return asn1_keys.PrivateKeyInfo.load(key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
tsa_key = rsa.generate_private_key(65537, 2048)
root = issue("Producers root", root_key, None, None, ca=True)
leaf = issue("Producers seal", key, root.subject, root_key)
tsa = issue("Producers TSA", tsa_key, root.subject, root_key, purpose=ExtendedKeyUsageOID.TIME_STAMPING)
store = SimpleCertificateStore()
store.register_multiple([loaded(root)])
signer = signers.SimpleSigner(signing_cert=loaded(leaf), signing_key=private(key), cert_registry=store)
stamper = timestamps.DummyTimeStamper(tsa_cert=loaded(tsa), tsa_key=private(tsa_key), certs_to_embed=store)

DOC = open("contract.pdf", "rb").read().replace(b"/Metadata 11 0 R", b" " * 16)


def sign(doc, field, stamped=False, box=None, **meta):
    w = IncrementalPdfFileWriter(io.BytesIO(doc))
    meta = signers.PdfSignatureMetadata(field_name=field, subfilter=fields.SigSeedSubFilter.PADES, md_algorithm="sha256", reason="Contract", **meta)
    spec = fields.SigFieldSpec(field, box=box) if box else None
    out = signers.PdfSigner(meta, signer, timestamper=stamper if stamped else None, new_field_spec=spec).sign_pdf(w, bytes_reserved=8192)
    return out.getvalue()


def certify(level, **more):
    return sign(DOC, "First", certify=True, docmdp_permissions=fields.MDPPerm(level), **more)


def stamp(doc):
    w = IncrementalPdfFileWriter(io.BytesIO(doc))
    return signers.PdfTimeStamper(stamper, field_name="Stamp").timestamp_pdf(w, "sha256", bytes_reserved=8192).getvalue()


def changed(doc, change):
    w = IncrementalPdfFileWriter(io.BytesIO(doc))
    change(w)
    out = io.BytesIO()
    w.write(out)
    return out.getvalue()


def fill(w):
    for ref in w.root["/AcroForm"]["/Fields"]:
        field = ref.get_object()
        if field.get("/T") == "amount":
            field[NAME("/V")] = generic.pdf_string("900")
            w.update_container(field)


def page_text(w):
    contents = w.root["/Pages"]["/Kids"][0]["/Contents"]
    contents._data = b"BT /F1 24 Tf 72 700 Td (Pay 900 EUR) Tj ET"
    contents._encoded_data = None
    w.update_container(contents)


def free_text(w):
    page = w.root["/Pages"]["/Kids"][0]
    ref = w.add_object(generic.DictionaryObject({
        NAME("/Type"): NAME("/Annot"), NAME("/Subtype"): NAME("/FreeText"), NAME("/Contents"): generic.pdf_string("Pay 900 EUR"),
        NAME("/Rect"): generic.ArrayObject(map(generic.FloatObject, (0, 0, 600, 700)))}))
    page["/Annots"].append(ref)
    w.update_container(page["/Annots"])
    w.update_container(page)


files = {
    "b-b": sign(DOC, "First"),
    "b-t": sign(DOC, "First", stamped=True),
    "b-t-visible": sign(DOC, "First", stamped=True, box=(300, 100, 400, 140)),
    "existing-field": sign(DOC, "seal", stamped=True),
    "two": sign(sign(DOC, "First"), "Second", stamped=True),
    "stamped-document": stamp(sign(DOC, "First")),
    "certified-1": certify(1, stamped=True),
    "certified-2": certify(2),
    "certified-3": certify(3),
    "certified-1-stamped-document": stamp(certify(1)),
    "certified-2-signed": sign(certify(2), "Second"),
    "certified-2-existing-field": sign(certify(2), "seal"),
    "certified-1-filled": changed(certify(1), fill),
    "certified-2-filled": changed(certify(2), fill),
    "certified-3-free-text": changed(certify(3), free_text),
    "page-changed": changed(sign(DOC, "First"), page_text),
    "certified-3-page-changed": changed(certify(3), page_text),
}
verdicts = {}
for name, content in files.items():
    open(name + ".pdf", "wb").write(content)
    context = ValidationContext(trust_roots=[loaded(root)], allow_fetching=False)
    reader = PdfFileReader(io.BytesIO(content))
    verdicts[name] = {s.field_name: bool(validate_pdf_signature(s, context).bottom_line) for s in reader.embedded_regular_signatures}
open("root.pem", "wb").write(pem.armor("CERTIFICATE", loaded(root).dump()))
json.dump({"at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "valid": verdicts}, open("verdicts.json", "w"), indent=1)
