package deal

import "time"

// Pause says that a person has a tenant wait: its entries are noticed, and nothing is made of them, sealed, or written to its
// CRM until a person has it go on.
type Pause struct {
	Tenant TenantID  `json:"tenant"`
	Since  time.Time `json:"since"`
	Who    string    `json:"who"`
	Why    string    `json:"why"`
}
