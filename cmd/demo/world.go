package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/dealseal/dealseal/mocks/crm/hubspot"
	"github.com/dealseal/dealseal/mocks/crm/salesforce"
	"github.com/dealseal/dealseal/mocks/pki"
)

// world is everything around the daemon.
type world struct {
	options
	authority *pki.Authority
	crms      []*crm
	keyPlace  string // for people
	page      string // the status page of the running daemon
	keyConfig string // YAML of signing.keys.house
	servers   []*http.Server

	consumerKey, hubspotToken string
	loginKey                  *rsa.PrivateKey
}

// crm is one mock CRM and what the demo does with it.
type crm struct {
	tenant, kind, object string
	url                  string
	// close makes a deal and moves it to its stage; it returns the record's ID.
	close func(n int) (record string, err error)
	// fields and contract read back what dealseal has written.
	fields   func(record string) map[string]string
	contract func(record string) (name string, content []byte)
}

func newWorld(ctx context.Context, o options) (w *world, err error) {
	w = &world{options: o, consumerKey: rand.Text(), hubspotToken: "pat-eu1-" + rand.Text()}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	for _, dir := range []string{"config/tenants", "sealed", "trust", "token/tokens", "state"} {
		if err := os.MkdirAll(filepath.Join(o.dir, dir), 0o700); err != nil {
			return nil, err
		}
	}
	l, err := listen(ctx)
	if err != nil {
		return nil, err
	}
	if w.authority, err = pki.New(pki.Options{BaseURL: "http://" + l.Addr().String(), Organisation: "Demo Trust"}); err != nil {
		return nil, err
	}
	w.serve(l, w.authority)
	if err := os.WriteFile(filepath.Join(o.dir, "trust/root.pem"), w.authority.RootPEM(), 0o644); err != nil {
		return nil, err
	}
	if err := w.startSalesforce(ctx); err != nil {
		return nil, err
	}
	if err := w.startHubSpot(ctx); err != nil {
		return nil, err
	}
	if o.softKey {
		err = w.makeSoftKey(ctx)
	} else {
		err = w.makeToken(ctx)
	}
	if err != nil {
		return nil, err
	}
	return w, w.writeConfiguration()
}

func (w *world) close() {
	for _, s := range w.servers {
		s.Close()
	}
}

func listen(ctx context.Context) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
}

func (w *world) serve(l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	w.servers = append(w.servers, s)
	go s.Serve(l) // ends when close closes the server
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) startSalesforce(ctx context.Context) (err error) {
	if w.loginKey, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(w.loginKey)
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.path("config/salesforce-login.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return err
	}
	l, err := listen(ctx)
	if err != nil {
		return err
	}
	url := "http://" + l.Addr().String()
	org := salesforce.New(salesforce.Options{OrgName: "Northwind Systems", Sandbox: true, InstanceURL: url, ConsumerKey: w.consumerKey, PublicKey: &w.loginKey.PublicKey, RequestLimit: 1_000_000})
	w.serve(l, org)
	w.crms = append(w.crms, &crm{
		tenant: "northwind", kind: "salesforce", object: "Opportunity", url: url,
		close: func(n int) (string, error) { return closeOpportunity(org, n) },
		fields: func(id string) map[string]string {
			record, _ := org.Record(id)
			return dealsealFields(record)
		},
		contract: func(id string) (string, []byte) {
			for _, f := range org.Files(id) {
				v := f.Versions[len(f.Versions)-1]
				if !isTrail(v.Name) {
					return v.Name, v.Content
				}
			}
			return "", nil
		},
	})
	return nil
}

// names are customers of the demo, from several scripts that the default font has.
var names = []struct{ company, street, zip, city, country, contact string }{
	{"Zażółć Gęślą Jaźń Sp. z o.o.", "ul. Długa 7", "80-827", "Gdańsk", "Poland", "Łucja Żółkiewska"},
	{"Αιολικά Συστήματα Α.Ε.", "Λεωφόρος Αθηνών 12", "104 41", "Αθήνα", "Greece", "Ελένη Παπαδοπούλου"},
	{"Müller & Söhne GmbH", "Königstraße 1a", "70173", "Stuttgart", "Germany", "Jürgen Weiß"},
	{"ТОВ «Дніпро Енерго»", "вул. Січових Стрільців 4", "01001", "Київ", "Ukraine", "Олена Шевченко"},
	{"Société Générale d’Éclairage", "8 rue de l’Échiquier", "75010", "Paris", "France", "Zoé Lefèvre"},
}

// goods are what they buy: description, code, quantity, unit price.
var goods = []struct{ name, code, quantity, price, amount string }{
	{"Metering platform, annual subscription", "MP-100", "1", "18400.00", "18400.00"},
	{"Additional site licences", "MP-110", "24", "310.50", "7452.00"},
	{"Onboarding and data migration", "PS-200", "6", "1250.00", "7500.00"},
	{"Premium support, 24 × 7", "SP-300", "1", "4980.00", "4980.00"},
	{"Field gateway, DIN rail", "HW-010", "48", "189.90", "9115.20"},
}

const total = "47447.20"

func closeOpportunity(org *salesforce.Org, n int) (string, error) {
	who := names[(2*n)%len(names)]
	account, err := org.CreateAccount(map[string]any{"Name": who.company, "BillingStreet": who.street, "BillingPostalCode": who.zip, "BillingCity": who.city, "BillingCountry": who.country})
	if err != nil {
		return "", err
	}
	id, err := org.CreateOpportunity(map[string]any{"Name": fmt.Sprintf("%s, metering 2027 (%d)", who.company, n), "AccountId": account, "StageName": "Negotiation/Review"})
	if err != nil {
		return "", err
	}
	for _, g := range goods {
		if _, err := org.AddLineItem(id, map[string]any{"Quantity": json.Number(g.quantity), "UnitPrice": json.Number(g.price),
			"Product2": map[string]any{"Name": g.name, "ProductCode": g.code}}); err != nil {
			return "", err
		}
	}
	if _, err := org.AddContactRole(id, map[string]any{"Role": "Decision Maker", "IsPrimary": true,
		"Contact": map[string]any{"LastName": who.contact, "Email": "purchasing@example.com", "Title": "Head of Purchasing"}}); err != nil {
		return "", err
	}
	return id, org.MoveStage(id, "Closed Won")
}

func (w *world) startHubSpot(ctx context.Context) error {
	l, err := listen(ctx)
	if err != nil {
		return err
	}
	url := "http://" + l.Addr().String()
	portal := hubspot.New(hubspot.Options{AccountType: "SANDBOX", Tokens: []hubspot.Token{{Value: w.hubspotToken}}})
	for _, f := range hubspot.WriteBackProperties() {
		if err := portal.AddProperty("deals", f); err != nil {
			return err
		}
	}
	w.serve(l, portal)
	if err := os.WriteFile(w.path("config/hubspot-token"), []byte(w.hubspotToken), 0o600); err != nil {
		return err
	}
	w.crms = append(w.crms, &crm{
		tenant: "contoso", kind: "hubspot", object: "deals", url: url,
		close: func(n int) (string, error) { return closeDeal(portal, n) },
		fields: func(id string) map[string]string {
			record, err := portal.Record(id)
			if err != nil {
				return nil
			}
			all := map[string]any{}
			for k, v := range record.Properties {
				all[k] = v
			}
			return dealsealFields(all)
		},
		contract: func(id string) (string, []byte) {
			files, err := portal.Files(id)
			if err != nil {
				return "", nil
			}
			for _, f := range files {
				if name := filepath.Base(f.Path); !isTrail(name) {
					return name, f.Content
				}
			}
			return "", nil
		},
	})
	return nil
}

func closeDeal(portal *hubspot.Portal, n int) (string, error) {
	who := names[(2*n+1)%len(names)]
	id, err := portal.CreateDeal(map[string]string{"dealname": fmt.Sprintf("%s, metering 2027 (%d)", who.company, n), "pipeline": "default", "dealstage": "decisionmakerboughtin",
		"amount": total, "deal_currency_code": "EUR", "closedate": time.Now().UTC().Format(time.RFC3339)})
	if err != nil {
		return "", err
	}
	if _, err := portal.AddCompany(id, map[string]string{"name": who.company, "address": who.street, "zip": who.zip, "city": who.city, "country": who.country}); err != nil {
		return "", err
	}
	if _, err := portal.AddContact(id, map[string]string{"firstname": who.contact, "email": fmt.Sprintf("purchasing-%d@example.com", n), "jobtitle": "Head of Purchasing"}, "Signer"); err != nil {
		return "", err
	}
	for i, g := range goods {
		if _, err := portal.AddLineItem(id, map[string]string{"name": g.name, "hs_sku": g.code, "quantity": g.quantity, "price": g.price, "amount": g.amount,
			"hs_position_on_quote": fmt.Sprint(i)}); err != nil {
			return "", err
		}
	}
	return id, portal.MoveStage(id, "contractsent")
}
