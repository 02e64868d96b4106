package pitaya

import (
	"sync"
	"time"
)

// How the engine tells when an answer has left: a mark says up to which byte of
// all that was ever queued for the connection an answer goes, and who wants to
// know that this byte was written. Without reporters and Tracer there are no
// marks, and nothing of this costs anything.

// A writeMark is one answer that is queued.
type writeMark struct {
	End   int64           // byte behind the answer, counted from the connection's first
	Since time.Time       // when the request arrived
	Meter *responseMeter  // nil: there are no reporters
	Done  func(err error) // called once, by who writes or ends the connection, without a lock; err says why the answer was not written. Nil: nothing is traced.
}

// wanted reports whether anybody wants to know.
func (m *writeMark) wanted() bool { return m != nil && (m.Meter != nil || m.Done != nil) }

// done ends the spans of the answer.
func (m *writeMark) done(err error) {
	if m.Done != nil {
		m.Done(err)
	}
}

// markList holds marks in the order of their bytes. Lists are pooled: an idle
// connection has none.
type markList struct {
	Marks []writeMark
}

var markPool = sync.Pool{New: func() any { return new(markList) }}

// maxMarks is the length from which a list is left to the garbage collector.
const maxMarks = 1 << 10

func (l *markList) free() {
	if cap(l.Marks) <= maxMarks {
		clear(l.Marks)
		l.Marks = l.Marks[:0]
		markPool.Put(l)
	}
}

// markLocked marks the end of what is queued by now. It copies m once; marks
// are made for each answer.
func (c *conn) markLocked(m *writeMark) {
	list := c.marks
	if list == nil {
		list = markPool.Get().(*markList)
		c.marks = list
	}
	m.End = c.queued
	list.Marks = append(list.Marks, *m)
}

// cutMarksLocked takes out the marks of what is not going to be written: all
// behind a byte. The caller owns them, and drops them when it has given up the
// lock.
func (c *conn) cutMarksLocked(end int64) *markList {
	kept := c.takeMarksLocked(end)
	cut := c.marks
	c.marks = kept
	return cut
}

// writtenLocked takes out the marks of what is written by now, nil if there are
// none. The caller owns them, and reports them when it has given up the lock.
func (c *conn) writtenLocked() *markList { return c.takeMarksLocked(c.written) }

// takeMarksLocked takes out the marks up to a byte.
func (c *conn) takeMarksLocked(end int64) *markList {
	list := c.marks
	if list == nil || list.Marks[0].End > end {
		return nil
	}
	n := 1
	for n < len(list.Marks) && list.Marks[n].End <= end {
		n++
	}
	if n == len(list.Marks) {
		c.marks = nil
		return list
	}
	taken := markPool.Get().(*markList)
	taken.Marks = append(taken.Marks, list.Marks[:n]...)
	k := copy(list.Marks, list.Marks[n:])
	clear(list.Marks[k:])
	list.Marks = list.Marks[:k]
	return taken
}

// report tells of answers that were written. A nil list has none.
func (l *markList) report() {
	if l != nil {
		l.each(func(m *responseMeter, took time.Duration) { m.report(took) }, nil)
		l.free()
	}
}

// fail tells of answers that could not be written.
func (l *markList) fail() {
	if l != nil {
		l.each(func(m *responseMeter, took time.Duration) { m.failed(took, CodeSendFailed) }, errUnsent)
		l.free()
	}
}

// each calls f with the time that each answer has taken until now, and ends its
// spans with err. The clock is read once.
func (l *markList) each(f func(m *responseMeter, took time.Duration), err error) {
	first := l.Marks[0].Since
	longest := time.Since(first)
	for i := range l.Marks {
		m := &l.Marks[i]
		if m.Meter != nil {
			f(m.Meter, longest-m.Since.Sub(first))
		}
		m.done(err)
	}
}

// drop is for answers that nobody waits for any more, because the connection has
// ended. Reporters do not count them.
func (l *markList) drop() {
	if l == nil {
		return
	}
	for i := range l.Marks {
		l.Marks[i].done(ErrSessionClosed)
	}
	l.free()
}

// errUnsent is why an answer was not written while its client was there.
var errUnsent = Errorf(CodeSendFailed, "pitaya: the answer could not be written")
