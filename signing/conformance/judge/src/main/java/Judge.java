import com.fasterxml.jackson.databind.ObjectMapper;
import eu.europa.esig.dss.diagnostic.DiagnosticData;
import eu.europa.esig.dss.diagnostic.SignatureWrapper;
import eu.europa.esig.dss.enumerations.DigestAlgorithm;
import eu.europa.esig.dss.enumerations.SignatureLevel;
import eu.europa.esig.dss.jaxb.object.Message;
import eu.europa.esig.dss.model.DSSDocument;
import eu.europa.esig.dss.model.FileDocument;
import eu.europa.esig.dss.model.SignatureValue;
import eu.europa.esig.dss.model.ToBeSigned;
import eu.europa.esig.dss.model.x509.CertificateToken;
import eu.europa.esig.dss.pades.PAdESSignatureParameters;
import eu.europa.esig.dss.pades.signature.PAdESService;
import eu.europa.esig.dss.service.crl.OnlineCRLSource;
import eu.europa.esig.dss.service.ocsp.OnlineOCSPSource;
import eu.europa.esig.dss.service.tsp.OnlineTSPSource;
import eu.europa.esig.dss.simplereport.SimpleReport;
import eu.europa.esig.dss.spi.DSSUtils;
import eu.europa.esig.dss.spi.validation.CommonCertificateVerifier;
import eu.europa.esig.dss.spi.x509.CommonTrustedCertificateSource;
import eu.europa.esig.dss.spi.x509.aia.DefaultAIASource;
import eu.europa.esig.dss.token.DSSPrivateKeyEntry;
import eu.europa.esig.dss.token.Pkcs12SignatureToken;
import eu.europa.esig.dss.validation.SignedDocumentValidator;
import eu.europa.esig.dss.validation.reports.Reports;
import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore.PasswordProtection;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.verapdf.gf.foundry.VeraGreenfieldFoundryProvider;
import org.verapdf.pdfa.Foundries;
import org.verapdf.pdfa.PDFAParser;
import org.verapdf.pdfa.PDFAValidator;
import org.verapdf.pdfa.flavours.PDFAFlavour;
import org.verapdf.pdfa.results.TestAssertion;
import org.verapdf.pdfa.results.ValidationResult;

/**
 * Judges PDF files with EU DSS and veraPDF, and signs some with EU DSS. It reads one request a line, its words separated by
 * tabs, and answers each with one line of JSON:
 *
 * <pre>
 * signature FILE              what EU DSS says of the signatures
 * pdfa      FILE              what veraPDF says of PDF/A-3b
 * sign      IN OUT LEVEL TSA KEYSTORE   a signature by EU DSS; the key store's password is "password"
 * versions
 * </pre>
 *
 * Its one argument is the certificate that all trust has to begin with.
 */
public final class Judge {
    private final CertificateToken root;

    private Judge(CertificateToken root) {
        this.root = root;
    }

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        System.setOut(System.err); // libraries that print must not get between the answers
        VeraGreenfieldFoundryProvider.initialise();
        Judge judge = new Judge(DSSUtils.loadCertificate(new File(args[0])));
        ObjectMapper json = new ObjectMapper();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            Map<String, Object> answer;
            try {
                answer = judge.answer(line.split("\t"));
            } catch (Exception | LinkageError | StackOverflowError e) {
                answer = new LinkedHashMap<>();
                answer.put("error", e.toString());
            }
            out.println(json.writeValueAsString(answer));
        }
    }

    private Map<String, Object> answer(String[] request) throws Exception {
        switch (request[0]) {
            case "signature":
                return signature(new FileDocument(request[1]));
            case "pdfa":
                return pdfa(request[1]);
            case "sign":
                return sign(request[1], request[2], SignatureLevel.valueOf(request[3]), request[4], request[5]);
            case "versions":
                Map<String, Object> versions = new LinkedHashMap<>();
                versions.put("java", System.getProperty("java.version"));
                return versions;
            default:
                throw new IllegalArgumentException("unknown request " + request[0]);
        }
    }

    /** A verifier that trusts the root alone, and asks the addresses that certificates name. */
    private CommonCertificateVerifier verifier() {
        CommonTrustedCertificateSource trusted = new CommonTrustedCertificateSource();
        trusted.addCertificate(root);
        CommonCertificateVerifier v = new CommonCertificateVerifier();
        v.setTrustedCertSources(trusted);
        v.setOcspSource(new OnlineOCSPSource());
        v.setCrlSource(new OnlineCRLSource());
        v.setAIASource(new DefaultAIASource());
        return v;
    }

    private Map<String, Object> signature(DSSDocument document) {
        SignedDocumentValidator validator = SignedDocumentValidator.fromDocument(document);
        validator.setCertificateVerifier(verifier());
        Reports reports = validator.validateDocument();
        SimpleReport simple = reports.getSimpleReport();
        DiagnosticData diagnostic = reports.getDiagnosticData();
        List<Object> signatures = new ArrayList<>();
        for (String id : simple.getSignatureIdList()) {
            Map<String, Object> s = new LinkedHashMap<>();
            SignatureWrapper wrapper = diagnostic.getSignatureById(id);
            s.put("field", wrapper.getFirstFieldName());
            s.put("indication", String.valueOf(simple.getIndication(id)));
            s.put("sub_indication", simple.getSubIndication(id) == null ? "" : String.valueOf(simple.getSubIndication(id)));
            s.put("level", String.valueOf(simple.getSignatureFormat(id)));
            s.put("errors", texts(simple.getAdESValidationErrors(id)));
            s.put("warnings", texts(simple.getAdESValidationWarnings(id)));
            signatures.add(s);
        }
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("signatures", signatures);
        return answer;
    }

    private static List<String> texts(List<Message> messages) {
        List<String> list = new ArrayList<>();
        for (Message m : messages) {
            list.add(m.getValue());
        }
        return list;
    }

    private Map<String, Object> pdfa(String file) throws Exception {
        try (PDFAParser parser = Foundries.defaultInstance().createParser(new FileInputStream(file), PDFAFlavour.PDFA_3_B);
                PDFAValidator validator = Foundries.defaultInstance().createValidator(PDFAFlavour.PDFA_3_B, false)) {
            ValidationResult result = validator.validate(parser);
            List<String> errors = new ArrayList<>();
            for (TestAssertion a : result.getTestAssertions()) {
                if (a.getStatus() == TestAssertion.Status.FAILED && errors.size() < 20) {
                    errors.add(a.getRuleId().getClause() + "-" + a.getRuleId().getTestNumber() + " " + a.getMessage() + " at " + a.getLocation().getContext());
                }
            }
            Map<String, Object> answer = new LinkedHashMap<>();
            answer.put("compliant", result.isCompliant());
            answer.put("errors", errors);
            return answer;
        }
    }

    private Map<String, Object> sign(String in, String out, SignatureLevel level, String tsa, String keyStore) throws Exception {
        try (Pkcs12SignatureToken token = new Pkcs12SignatureToken(keyStore, new PasswordProtection("password".toCharArray()))) {
            DSSPrivateKeyEntry key = token.getKeys().get(0);
            PAdESSignatureParameters parameters = new PAdESSignatureParameters();
            parameters.setSignatureLevel(level);
            parameters.setDigestAlgorithm(DigestAlgorithm.SHA256);
            parameters.setSigningCertificate(key.getCertificate());
            parameters.setCertificateChain(key.getCertificateChain());
            PAdESService service = new PAdESService(verifier());
            service.setTspSource(new OnlineTSPSource(tsa));
            DSSDocument document = new FileDocument(in);
            ToBeSigned data = service.getDataToSign(document, parameters);
            SignatureValue value = token.sign(data, DigestAlgorithm.SHA256, key);
            service.signDocument(document, parameters, value).save(out);
            return new LinkedHashMap<>();
        }
    }
}
