package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Reload reads everything anew for a daemon that runs with c. What a reload takes is new in next: the tenant files, the
// folders templates and tenants, notify, the pins of signing.tsa, and log.level. All else in next is as it is in c; restart names the keys of dealseal.yaml
// that have changed and take a restart, as dotted paths. Tenant files are judged by what the daemon runs with: one that
// needs a profile that takes a restart is an error. All complaints are returned, joined; c is never changed.
func (c *Config) Reload() (next *Config, restart []string, err error) {
	file, err := read(c.File)
	if err != nil {
		return nil, nil, err
	}
	errs := file.check()
	taken := *c
	taken.root, taken.file = file.root, file
	taken.Templates, taken.Tenants, taken.Log.Level = file.Templates, file.Tenants, file.Log.Level
	taken.Notify = file.Notify
	taken.Signing.TSA = withPinsOf(c.Signing.TSA, file.Signing.TSA)
	if taken.Loaded, err = loadTenants(file.Tenants); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, taken.checkTenants()...)
	if len(errs) > 0 {
		return nil, nil, errors.Join(errs...)
	}
	taken.file = nil
	return &taken, differences("", reflect.ValueOf(taken), reflect.ValueOf(*file)), nil
}

// withPinsOf are the servers that run, with the pins that they have by now.
func withPinsOf(run, now []TSA) []TSA {
	run = slices.Clone(run)
	for i := range run {
		if i < len(now) && run[i].URL == now[i].URL {
			run[i].Pins = now[i].Pins
		}
	}
	return run
}

// unknownProfile says why a rule's profile is not there.
func (c *Config) unknownProfile(name string) string {
	if c.file != nil {
		if _, ok := c.file.Signing.Profiles[name]; ok {
			return fmt.Sprintf("seal is %q, which is new under signing.profiles: that takes a restart", name)
		}
	}
	return fmt.Sprintf("seal is %q, which is not under signing.profiles%s", name, Nearest(name, keysOf(c.Signing.Profiles)))
}

// differences lists the paths at which two values of one type differ, as deep as they have keys.
func differences(path string, a, b reflect.Value) (paths []string) {
	switch {
	case a.Kind() == reflect.Struct && a.Type().PkgPath() == reflect.TypeFor[Config]().PkgPath():
		for i := range a.NumField() {
			key := strings.Split(a.Type().Field(i).Tag.Get("yaml"), ",")[0]
			if key != "" && key != "-" {
				paths = append(paths, differences(under(path, key), a.Field(i), b.Field(i))...)
			}
		}
	case a.Kind() == reflect.Map && a.Type().Elem().Kind() == reflect.Struct:
		for _, key := range allKeys(a, b) {
			x, y := a.MapIndex(reflect.ValueOf(key)), b.MapIndex(reflect.ValueOf(key))
			if !x.IsValid() || !y.IsValid() {
				paths = append(paths, under(path, key))
				continue
			}
			paths = append(paths, differences(under(path, key), x, y)...)
		}
	case !reflect.DeepEqual(a.Interface(), b.Interface()):
		paths = append(paths, path)
	}
	return paths
}

func under(path, key string) string { return strings.TrimPrefix(path+"."+key, ".") }

func allKeys(maps ...reflect.Value) (keys []string) {
	for _, m := range maps {
		for _, k := range m.MapKeys() {
			keys = append(keys, k.String())
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
