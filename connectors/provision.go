package connectors

import (
	"context"

	"github.com/dealseal/dealseal/deal"
)

// Provisioner is the ability to make in the account what receipts are written to.
type Provisioner interface {
	// Lacking returns what of the write-backs' fields, and of the rights to them, the account lacks, in the order in which it
	// is to be made; nothing when all is there. It changes nothing.
	Lacking(ctx context.Context, written []Written) ([]Provision, error)
}

// Written is what receipts are written to on the records of an object.
type Written struct {
	Object string
	deal.WriteBack
	// Timeline says that notes are left on the records.
	Timeline bool
}

// Provision is one thing that an account lacks.
type Provision struct {
	// What it is, for people, without a full stop.
	What string
	// Make makes it. What somebody else has made meanwhile is success. nil: it cannot be made by us, and Cure says by whom.
	Make func(ctx context.Context) error
	Cure string
}
