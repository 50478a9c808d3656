package worker

// The variables by which a child knows what it is. They are gone before the
// Program starts.
const (
	envName  = "DEALSEAL_WORKER"       // name of the program
	envStage = "DEALSEAL_WORKER_STAGE" // stageConfined once Landlock holds
)

const stageConfined = "confined"

// socketFD is the child's end of the socketpair: the first of the ExtraFiles.
const socketFD = 3

// order tells a child its bounds.
type order struct {
	Frame   int     `json:"frame"`
	Memory  uint64  `json:"memory"`
	Files   uint64  `json:"files"`
	Sandbox Sandbox `json:"sandbox"`
}

func (s Spec) order() order {
	return order{Frame: s.Limits.Frame, Memory: s.Limits.Memory, Files: s.Limits.Files, Sandbox: s.Sandbox}
}

// readiness is what a child says of itself once its program has loaded.
type readiness struct {
	Landlock int `json:"landlock"` // ABI version, 0 if the kernel has none
}
