package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
)

// A journal is a file to which a server writes each message that it handles. It survives the server, however that ends: each
// record is written before its handler goes on.
type journal struct {
	mu     sync.Mutex // guards what follows; held while writing, which is to memory of the system
	file   *os.File
	broken bool
}

const journalRecord = 12 // three numbers

func newJournal(name string) (*journal, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &journal{file: f}, nil
}

func (j *journal) add(bot, session, seq int) {
	var b [journalRecord]byte
	binary.LittleEndian.PutUint32(b[0:], uint32(bot))
	binary.LittleEndian.PutUint32(b[4:], uint32(session))
	binary.LittleEndian.PutUint32(b[8:], uint32(seq))
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(b[:]); err != nil && !j.broken {
		j.broken = true
		slog.Error("journal", "err", err)
	}
}

func (j *journal) close() error { return j.file.Close() }

// handled is what the journals of all servers together say. It checks that no message was handled twice, and that each
// process has handled those of a session in the order in which the bot has sent them.
type handled struct {
	seen     map[int][]uint64       // by bot: a bit for each of its messages
	last     map[handledBy]int      // the last message of the session that the process has handled
	from     map[int]map[int]string // by bot and message: who has handled it; the last ones only
	Messages int
}

type handledBy struct {
	process      string
	bot, session int
}

func newHandled() *handled {
	return &handled{seen: make(map[int][]uint64), last: make(map[handledBy]int), from: make(map[int]map[int]string)}
}

// A journalReader is where somebody is in a journal.
type journalReader struct {
	process string
	file    *os.File
	rest    []byte // of a record that was not whole yet
}

func openJournal(process, name string) (*journalReader, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return &journalReader{process: process, file: f}, nil
}

// read takes in what was written since the last call. It calls wrong for each violation.
func (h *handled) read(r *journalReader, wrong func(bot int, text string)) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.file.Read(buf)
		b := append(r.rest, buf[:n]...)
		for len(b) >= journalRecord {
			h.add(r.process, int(binary.LittleEndian.Uint32(b)), int(binary.LittleEndian.Uint32(b[4:])),
				int(binary.LittleEndian.Uint32(b[8:])), wrong)
			b = b[journalRecord:]
		}
		r.rest = append([]byte(nil), b...)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// handledMemory is how many messages of a bot it is remembered of who has handled them.
const handledMemory = 256

func (h *handled) add(process string, bot, session, seq int, wrong func(bot int, text string)) {
	h.Messages++
	bits, from := h.seen[bot], h.from[bot]
	if from == nil {
		from = make(map[int]string)
		h.from[bot] = from
	}
	for len(bits) <= seq/64 {
		bits = append(bits, 0)
	}
	h.seen[bot] = bits
	if bits[seq/64]&(1<<(seq%64)) != 0 {
		wrong(bot, fmt.Sprintf("message %d was handled by %s after it had been by %s", seq, process, from[seq]))
	}
	bits[seq/64] |= 1 << (seq % 64)
	from[seq] = process
	delete(from, seq-handledMemory)
	key := handledBy{process, bot, session}
	if last := h.last[key]; last > seq {
		wrong(bot, fmt.Sprintf("%s has handled message %d of session %d after message %d", process, seq, session, last))
	}
	h.last[key] = max(h.last[key], seq)
}
