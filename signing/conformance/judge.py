"""Judges PDF signatures with pyHanko, makes some with it, and prepares documents for ours.

It reads one request a line, its words separated by tabs, and answers each with one line of JSON:

    signature FILE LEVEL                  what pyHanko says of every signature, by the AdES validation that the level calls for
    sign      IN OUT LEVEL TSA KEYSTORE   a signature by pyHanko; the key store's password is "password"
    fields    IN OUT VISIBLE NAME...      empty signature fields on the first page
    versions

Its one argument is the certificate that all trust has to begin with. For B-LT and B-LTA nobody is asked: what the file
carries has to do.
"""

import asyncio
import importlib.metadata
import json
import logging
import sys

from asn1crypto import crl, ocsp
from pyhanko.keys import load_cert_from_pemder
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign import fields, signers, timestamps
from pyhanko.sign.validation import ades
from pyhanko.sign.validation.dss import DocumentSecurityStore
from pyhanko.sign.validation.policy_decl import (
    CertificateFetchingRule,
    LocalKnowledge,
    PdfSignatureValidationSpec,
    RevinfoOnlineFetchingRule,
    RevocationInfoGatheringSpec,
    SignatureValidationSpec,
)
from pyhanko.sign.validation.settings import KeyUsageConstraints
from pyhanko_certvalidator import ValidationContext
from pyhanko_certvalidator.context import CertValidationPolicySpec
from pyhanko_certvalidator.policy_decl import CertRevTrustPolicy, RevocationCheckingPolicy
from pyhanko_certvalidator.registry import SimpleTrustManager
from pyhanko_certvalidator.revinfo.archival import CRLContainer, OCSPContainer

logging.disable(logging.CRITICAL)
root = load_cert_from_pemder(sys.argv[1])
LASTING = ("B-LT", "B-LTA")


def specification(level, store):
    """What is asked of a signature of that level: revocation data for every certificate, online or from the store."""
    lasting = level in LASTING
    return SignatureValidationSpec(
        cert_validation_policy=CertValidationPolicySpec(
            trust_manager=SimpleTrustManager.build(trust_roots=[root]),
            revinfo_policy=CertRevTrustPolicy(RevocationCheckingPolicy.from_legacy("require")),
        ),
        key_usage_settings=KeyUsageConstraints(key_usage={"non_repudiation"}),
        local_knowledge=knowledge(store) if level == "B-LT" and store else LocalKnowledge(),
        revinfo_gathering_policy=RevocationInfoGatheringSpec(
            online_fetching_rule=RevinfoOnlineFetchingRule.LOCAL_ONLY if lasting else RevinfoOnlineFetchingRule.ALWAYS_FETCH,
            certificate_fetching_rule=(
                CertificateFetchingRule.NEVER_FETCH if lasting else CertificateFetchingRule.FOLLOW_ONLINE_RULE
            ),
        ),
    )


def knowledge(store):
    """What a document security store holds."""
    responses = [ocsp.OCSPResponse.load(o.get_object().data) for o in store.ocsps]
    return LocalKnowledge(
        known_ocsps=[c for r in responses for c in OCSPContainer.load_multi(r)],
        known_crls=[CRLContainer(crl_data=crl.CertificateList.load(o.get_object().data)) for o in store.crls],
        known_certs=list(store.load_certs()),
    )


async def judge(embedded, level, store):
    """Validation as EN 319 102-1 has it: 5.3 for B-B, 5.5 for B-T and B-LT, 5.6 for B-LTA."""
    specified = specification(level, store)
    if level == "B-LTA":
        return await ades.ades_lta_validation(embedded, PdfSignatureValidationSpec(specified))
    check = ades.ades_basic_validation if level == "B-B" else ades.ades_with_time_validation
    return await check(embedded.signed_data, specified, raw_digest=embedded.compute_digest())


def describe(embedded, result):
    embedded.compute_integrity_info()
    integrity = embedded.summarise_integrity_info()
    difference = integrity["diff_result"]
    change = getattr(difference, "modification_level", None)
    return {
        "field": embedded.field_name,
        "indication": result.ades_subindic.status.name,
        "sub_indication": str(result.ades_subindic),
        "errors": [result.failure_msg] if result.failure_msg else [],
        "coverage": integrity["coverage"].name,
        "modification": "" if difference is None else change.name if change is not None else f"SUSPICIOUS: {difference}",
        "docmdp_ok": bool(integrity["docmdp_ok"]),
    }


def signature(name, level):
    with open(name, "rb") as f:
        reader = PdfFileReader(f, strict=False)
        store = DocumentSecurityStore.read_dss(reader) if "/DSS" in reader.root else None
        answers = [describe(e, asyncio.run(judge(e, level, store))) for e in reader.embedded_regular_signatures]
        return {
            "signatures": answers,
            "document_timestamps": len(reader.embedded_timestamp_signatures),
            "store": [len(store.certs), len(store.ocsps), len(store.crls)] if store else [],
        }


def sign(source, target, level, tsa, key_store):
    lasting = level in LASTING
    metadata = signers.PdfSignatureMetadata(
        field_name="Other",
        md_algorithm="sha256",
        subfilter=fields.SigSeedSubFilter.PADES,
        embed_validation_info=lasting,
        use_pades_lta=level == "B-LTA",
        validation_context=(
            ValidationContext(trust_roots=[root], allow_fetching=True, revocation_mode="require") if lasting else None
        ),
    )
    stamper = None if level == "B-B" else timestamps.HTTPTimeStamper(tsa)
    signer = signers.SimpleSigner.load_pkcs12(key_store, passphrase=b"password")
    with open(source, "rb") as f, open(target, "wb") as out:
        signers.sign_pdf(IncrementalPdfFileWriter(f, strict=False), metadata, signer=signer, timestamper=stamper, output=out)
    return {}


def prepare(source, target, visible, *names):
    with open(source, "rb") as f, open(target, "wb") as out:
        writer = IncrementalPdfFileWriter(f, strict=False)
        for i, name in enumerate(names):
            box = (60, 60 + 60 * i, 240, 110 + 60 * i) if visible == "true" else None
            fields.append_signature_field(writer, fields.SigFieldSpec(name, on_page=0, box=box))
        writer.write(out)
    return {}


def versions():
    names = ["pyHanko", "pyhanko-certvalidator", "cryptography"]
    return {"python": sys.version.split()[0], **{n: importlib.metadata.version(n) for n in names}}


commands = {"signature": signature, "sign": sign, "fields": prepare, "versions": versions}
for line in sys.stdin:
    request = line.rstrip("\n").split("\t")
    try:
        answer = commands[request[0]](*request[1:])
    except Exception as e:  # whatever a library throws is its judgement of the file
        answer = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(answer), flush=True)
