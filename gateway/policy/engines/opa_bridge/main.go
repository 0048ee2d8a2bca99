// The C interface of the Open Policy Agent, as the gateway calls it in process.
//
// Every export takes and gives bytes: JSON for everything that is not hot, and a buffer of the caller's for an
// evaluation. No panic crosses the border: it becomes an error. What Go hands out by pointer is freed by
// opa_bridge_release.
package main

/*
#include <stdint.h>
#include <stdlib.h>
*/
import "C"

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/version"
)

// abiVersion changes with any change of an export's meaning.
const abiVersion = 1

// sourceDigest is set by the build: the digest of the sources that this library was built from.
var sourceDigest = "unknown"

// What an evaluation ended as: the first byte of its answer.
const (
	answered  = 'A' // the answer as JSON follows
	undefined = 'U'
	cancelled = 'T' // the budget is spent, or somebody cancelled it
	failed    = 'E' // a problem as JSON follows
)

var (
	policies sync.Map // handle -> *policy
	running  sync.Map // ticket -> topdown.Cancel
	handles  atomic.Uint64
	loaded   atomic.Int64
)

func main() {}

//export opa_bridge_info
func opa_bridge_info() *C.char {
	info, _ := json.Marshal(map[string]any{
		"abi": abiVersion, "opa": version.Version, "go": runtime.Version(), "source": sourceDigest,
	})
	return C.CString(string(info))
}

//export opa_bridge_release
func opa_bridge_release(pointer unsafe.Pointer) {
	C.free(pointer)
}

// opa_bridge_call runs one operation: `request` is a JSON object, `payload` whatever else the operation reads. The
// answer is a JSON object of `size` bytes, with `problems` where the operation failed.
//
//export opa_bridge_call
func opa_bridge_call(
	operation *C.char, request *C.char, requestSize C.size_t, payload *C.char, payloadSize C.size_t, size *C.size_t,
) *C.char {
	answer := call(C.GoString(operation), borrowed(request, requestSize), borrowed(payload, payloadSize))
	*size = C.size_t(len(answer))
	return (*C.char)(C.CBytes(answer))
}

// opa_bridge_evaluate writes the answer into `buffer` and gives its size. A size above `capacity` means that nothing
// was written; -1 is an unknown handle. `ticket` 0 cannot be cancelled.
//
//export opa_bridge_evaluate
func opa_bridge_evaluate(
	handle C.uint64_t, ticket C.uint64_t, input *C.char, inputSize C.size_t, budgetMicroseconds C.int64_t,
	buffer *C.char, capacity C.size_t,
) C.int64_t {
	entry, found := policies.Load(uint64(handle))
	if !found {
		return -1
	}
	cancel := topdown.NewCancel()
	if ticket != 0 {
		running.Store(uint64(ticket), cancel)
		defer running.Delete(uint64(ticket))
	}
	timer := time.AfterFunc(time.Duration(budgetMicroseconds)*time.Microsecond, cancel.Cancel)
	answer := guardedEvaluation(entry.(*policy), borrowed(input, inputSize), cancel)
	timer.Stop()
	if len(answer) <= int(capacity) {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(buffer)), int(capacity)), answer)
	}
	return C.int64_t(len(answer))
}

// opa_bridge_cancel ends the evaluation with this ticket, if it is still running.
//
//export opa_bridge_cancel
func opa_bridge_cancel(ticket C.uint64_t) {
	if cancel, found := running.Load(uint64(ticket)); found {
		cancel.(topdown.Cancel).Cancel()
	}
}

func guardedEvaluation(p *policy, input []byte, cancel topdown.Cancel) (answer []byte) {
	defer func() {
		if reason := recover(); reason != nil {
			answer = failure(problem{Code: "panic", Message: fmt.Sprint(reason)})
		}
	}()
	return p.evaluate(input, cancel)
}

func call(operation string, request, payload []byte) (answer []byte) {
	defer func() {
		if reason := recover(); reason != nil {
			answer = encoded(problems(problem{Code: "panic", Message: fmt.Sprint(reason)}))
		}
	}()
	act, found := operations[operation]
	if !found {
		return encoded(problems(problem{Code: "bridge_error", Message: "no operation " + operation}))
	}
	return encoded(act(request, payload))
}

// operations are everything that is not hot. Each answers with a value that is written as JSON.
var operations map[string]func(request, payload []byte) any

func init() {
	operations = map[string]func(request, payload []byte) any{
		"load": load, "free": free, "configure": configure, "statistics": statistics, "panic": nilDereference,
		"check": check, "query": query, "explain": explain, "test": test, "format": formatted, "inspect": inspect,
		"dependencies": dependenciesOperation, "capabilities": capabilities, "bundle": readBundle,
		"scaffold": scaffold, "strict": strictCheck,
	}
}

// tuning is how the collector works: see configure.
var tuning struct {
	sync.Mutex
	headroom int64
}

// configure sets the scheduler and the collector: {threads, gc_percent, headroom_bytes}. A small heap grows by
// `gc_percent` between collections; a large one by no more than `headroom_bytes` and what is alive.
func configure(request, _ []byte) any {
	var wanted struct {
		GCPercent int   `json:"gc_percent"`
		Headroom  int64 `json:"headroom_bytes"`
		Threads   int   `json:"threads"`
	}
	if err := json.Unmarshal(request, &wanted); err != nil {
		return problemsOf(err)
	}
	runtime.GOMAXPROCS(wanted.Threads)
	debug.SetGCPercent(wanted.GCPercent)
	tuning.Lock()
	tuning.headroom = wanted.Headroom
	tuning.Unlock()
	settle()
	return struct{}{}
}

// settle gives back what a load or a release left over, and sets the limit by what is alive.
func settle() {
	tuning.Lock()
	defer tuning.Unlock()
	debug.FreeOSMemory()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	debug.SetMemoryLimit(2*int64(memory.HeapAlloc) + tuning.headroom)
}

// statistics counts what is alive, after a collection: {policies, evaluations, goroutines, heap_bytes, collections}.
func statistics(_, _ []byte) any {
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	evaluations := 0
	running.Range(func(_, _ any) bool { evaluations++; return true })
	return map[string]any{
		"policies": loaded.Load(), "evaluations": evaluations, "goroutines": runtime.NumGoroutine(),
		"heap_bytes": memory.HeapAlloc, "collections": memory.NumGC,
	}
}

// nilDereference panics, so that a test sees what becomes of it.
func nilDereference(_, _ []byte) any {
	var missing *policy
	return missing.entry
}

func free(request, _ []byte) any {
	var wanted struct {
		Handle uint64 `json:"handle"`
	}
	if err := json.Unmarshal(request, &wanted); err != nil {
		return problems(problem{Code: "bridge_error", Message: err.Error()})
	}
	if _, found := policies.LoadAndDelete(wanted.Handle); found {
		loaded.Add(-1)
		settle()
	}
	return struct{}{}
}

// borrowed is the caller's memory as a slice: never kept beyond the call.
func borrowed(pointer *C.char, size C.size_t) []byte {
	if size == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(pointer)), int(size))
}

func encoded(answer any) []byte {
	text, err := json.Marshal(answer)
	if err != nil {
		text, _ = json.Marshal(problems(problem{Code: "bridge_error", Message: err.Error()}))
	}
	return text
}
