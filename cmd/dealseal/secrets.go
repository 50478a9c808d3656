package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dealseal/dealseal/config"
	"github.com/dealseal/dealseal/deal"
	"github.com/dealseal/dealseal/doctor"
	"github.com/dealseal/dealseal/secret"
)

// secretsLast is how long a secret may stay the same.
const secretsLast = 90 * 24 * time.Hour

const checkSecretAge = "secret"

// secretPlace is where a tenant's file names a secret.
type secretPlace struct {
	key string // such as crm.with.auth.token
	ref secret.Ref
}

// secretAge is since when a secret has been what it is, at the latest.
type secretAge struct {
	secretPlace
	since time.Time
}

// housePlaces lists the secrets of dealseal.yaml that other servers are shown. What opens a token or a file of our own (pin,
// passphrase, master_key) is not among them: it goes nowhere.
func housePlaces(cfg *config.Config) []secretPlace {
	all := placesIn(reflect.ValueOf(cfg.SignIn), "sign_in")
	all = append(all, placesIn(reflect.ValueOf(cfg.Notify), "notify")...)
	all = append(all, placesIn(reflect.ValueOf(cfg.Signing.Keys), "signing.keys")...)
	return slices.DeleteFunc(all, func(p secretPlace) bool {
		return strings.HasSuffix(p.key, ".pin") || strings.HasSuffix(p.key, ".passphrase")
	})
}

// places lists the secrets of a tenant's file.
func (t tenant) places() (all []secretPlace) {
	all = placesIn(reflect.ValueOf(t.with), "crm.with")
	all = append(all, placesIn(reflect.ValueOf(t.file.Push), "push")...)
	all = append(all, placesIn(reflect.ValueOf(t.file.Vendors), "vendors")...)
	return append(all, placesIn(reflect.ValueOf(t.file.Webhooks), "webhooks")...)
}

// placesIn finds references to secrets wherever they stand, so that none is forgotten that a connector has later.
func placesIn(v reflect.Value, key string) (all []secretPlace) {
	if ref, ok := v.Interface().(secret.Ref); ok {
		if !ref.IsZero() {
			all = append(all, secretPlace{key, ref})
		}
		return all
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return placesIn(v.Elem(), key)
		}
	case reflect.Slice:
		for i := range v.Len() {
			all = append(all, placesIn(v.Index(i), fmt.Sprintf("%s.%d", key, i))...)
		}
	case reflect.Map:
		for _, k := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }) {
			all = append(all, placesIn(v.MapIndex(k), key+"."+k.String())...)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if f.IsExported() && name != "" && name != "-" {
				all = append(all, placesIn(v.Field(i), key+"."+name)...)
			}
		}
	}
	return all
}

// sinceKnown says since when secrets have been known by their content. store.Store's SecretsSince is one.
type sinceKnown func(ctx context.Context, tenant deal.TenantID, secrets []secret.Secret) ([]time.Time, error)

// secretAges reads the secrets of a tenant, or of the house (no ID), and says since when each has been what it is. What cannot be read is left to other
// checks. A file that was last written before its content was first seen here is as old as that; one that was written later may
// have been written with the same content.
func secretAges(ctx context.Context, id deal.TenantID, places []secretPlace, known sinceKnown) (ages []secretAge, err error) {
	var values []secret.Secret
	for _, p := range places {
		value, err := p.ref.Resolve()
		if err != nil {
			continue
		}
		values, ages = append(values, value), append(ages, secretAge{secretPlace: p})
	}
	if len(values) == 0 {
		return nil, nil
	}
	since, err := known(ctx, id, values)
	if err != nil {
		return nil, err
	}
	for i := range ages {
		ages[i].since = since[i]
		if written, ok := writtenAt(ages[i].ref); ok && written.Before(since[i]) {
			ages[i].since = written
		}
	}
	return ages, nil
}

// writtenAt is when the file of a reference was written. systemd writes credentials anew at each start.
func writtenAt(ref secret.Ref) (at time.Time, ok bool) {
	if !strings.HasPrefix(ref.String(), "file:") {
		return at, false
	}
	path, err := ref.Path()
	if err != nil {
		return at, false
	}
	info, err := os.Stat(path)
	if err != nil {
		return at, false
	}
	return info.ModTime(), true
}

// examineSecrets reports secrets that have been the same for too long.
func (x *examiner) examineSecrets(t tenant) doctor.Examination {
	return x.examineSecretsAt(doctor.TenantGroup(t.file.Tenant.ID), deal.TenantID(t.file.Tenant.ID), t.places())
}

func (x *examiner) examineHouseSecrets() doctor.Examination {
	return x.examineSecretsAt(doctor.Configuration, "", housePlaces(x.cfg))
}

func (x *examiner) examineSecretsAt(group string, id deal.TenantID, places []secretPlace) doctor.Examination {
	return examination(group, checkSecretAge, "", tenantLimit, func(ctx context.Context, report func(doctor.Finding)) {
		ages, err := secretAges(ctx, id, places, x.secretsSince)
		if err != nil {
			report(failed(checkSecretAge, err, "look at the database"))
			return
		}
		for _, a := range ages {
			if age := time.Since(a.since); age > secretsLast {
				report(doctor.Warned(checkSecretAge, "make a new one where it comes from, put it in the place of the old one, and end the old one there; docs/RUNBOOK.md, DealsealSecretOld",
					"%s has been the same since %s or longer: %s", a.ref, a.since.Format(time.DateOnly), plural(int(age/(24*time.Hour)), "day")).On(a.key))
			}
		}
	})
}

// secretWatch tells Prometheus how old secrets are. It is safe for concurrent use.
type secretWatch struct {
	mu   sync.Mutex
	ages map[deal.TenantID][]secretAge
}

var secretAgeDesc = prometheus.NewDesc("dealseal_secret_age_seconds", "For how long at least a secret has been the same that a tenant's file names, or dealseal.yaml (no tenant).", []string{"tenant", "secret"}, nil)

// Describe implements prometheus.Collector.
func (w *secretWatch) Describe(ch chan<- *prometheus.Desc) { ch <- secretAgeDesc }

// Collect implements prometheus.Collector.
func (w *secretWatch) Collect(ch chan<- prometheus.Metric) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for tenant, ages := range w.ages {
		for _, a := range ages {
			ch <- prometheus.MustNewConstMetric(secretAgeDesc, prometheus.GaugeValue, time.Since(a.since).Seconds(), string(tenant), a.key)
		}
	}
}

// secretsEvery is how often secrets are looked at, so that one that is in use for an hour is known from its beginning.
const secretsEvery = time.Hour

// lookAfterSecrets takes note of secrets until ctx ends.
func (d *service) lookAfterSecrets(ctx context.Context) error {
	tick := time.NewTicker(secretsEvery)
	defer tick.Stop()
	for {
		all, house := map[deal.TenantID][]secretAge{}, d.residents.house()
		look := func(id deal.TenantID, places []secretPlace) {
			ages, err := secretAges(ctx, id, places, d.store.SecretsSince)
			if err != nil && ctx.Err() == nil {
				d.log.Error("it could not be looked up how old secrets are", "tenant", id, "err", err)
			}
			all[id] = ages
		}
		look("", housePlaces(house.cfg))
		for _, t := range house.tenants {
			look(deal.TenantID(t.file.Tenant.ID), t.places())
		}
		d.secrets.mu.Lock()
		d.secrets.ages = all
		d.secrets.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
