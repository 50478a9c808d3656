package pdf

// Budgets. They are far above what real documents need and far below what hurts a worker with 200 MB.
const (
	maxDepth         = 100      // arrays and dictionaries inside each other
	maxObjectBytes   = 8 << 20  // text of one object, without stream data
	maxObjectNodes   = 1 << 20  // values inside one object
	maxObjects       = 1 << 20  // entries of all cross-reference sections together, and object numbers
	maxSections      = 4096     // cross-reference sections
	maxStreamBytes   = 64 << 20 // one stream, decoded
	maxObjStmBytes   = 16 << 20 // one object stream, decoded
	maxObjStmObjects = 1 << 16  // objects in one object stream
	maxPredictorRow  = 1 << 20  // bytes of one row of a PNG predictor
	objStmCacheBytes = 32 << 20 // decoded object streams kept
	objectCacheBytes = 8 << 20  // text of the objects kept
	maxPages         = 1 << 18
	maxFields        = 1 << 16
	maxReferences    = 32   // a reference that leads to a reference, and so on
	headerWindow     = 1024 // %PDF- is looked for in so many bytes
	trailerWindow    = 4096 // startxref is looked for in so many bytes at the end

	// A file may cost so much reading altogether: a fixed part and a multiple of its size. It ends the search of a
	// file whose every object is cheap but whose graph is not.
	baseWork   = 256 << 20
	workFactor = 16
)
