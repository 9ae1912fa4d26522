package chain

import (
	"cmp"
	"slices"
)

// Measures of the picture.
const (
	cardWidth   = 250.0
	headHeight  = 46.0 // number, name and address
	portHeight  = 18.0
	lineHeight  = 16.0
	chipGap     = 4.0
	columnGap   = 86.0
	rowGap      = 22.0
	passHeight  = 10.0 // of a connection that passes a column by
	margin      = 56.0 // left and right: connections to the next row run here
	gutter      = 34.0 // between rows
	partGap     = 16.0
	rowColumns  = 5 // columns of a row at most
	maxDrawn    = 200
	maxLines    = 600
	maxPasses   = 3000
	manyHosts   = 16 // from here on cards are shorter
	laneSpacing = 7.0
)

// A cell is a place in a column: a host, or where a connection passes by.
type cell struct {
	host        *Host
	card        []textLine // what is below the ports
	x, y, h     float64
	left, right []*segment
	column      int
}

// A segment is a connection, or a piece of it, between two neighbouring columns.
type segment struct {
	link   *Connection
	a, b   *cell
	ya, yb float64 // below the tops of the cells
	// back is true where the path leads from b to a.
	back bool
	// first and last say which of its ends are those of the connection.
	first, last bool
}

// A row is as many columns as the picture is wide.
type row struct {
	columns [][]*cell
	height  float64
	turning []*segment // to the next row
}

// A picture is what is drawn, in place.
type picture struct {
	*Chain
	rows   []row
	parts  []int // the rows with which parts begin
	width  float64
	hidden int // hosts and connections that are not drawn
	lines  int
	cells  map[int]*cell
	passes int
}

func place(c *Chain) *picture {
	p := &picture{Chain: c, cells: map[int]*cell{}}
	shown := p.shown()
	for _, part := range c.parts {
		var columns [][]*cell
		for _, ids := range part {
			var column []*cell
			for _, id := range ids {
				if shown[id] {
					column = append(column, p.cell(id, len(columns)))
				}
			}
			if len(column) > 0 {
				columns = append(columns, column)
			}
		}
		if len(columns) > 0 {
			p.part(columns)
		}
	}
	p.width = max(p.width, 3*cardWidth+2*columnGap) + 2*margin
	return p
}

// shown chooses the hosts to be drawn: those of the first paths.
func (p *picture) shown() map[int]bool {
	shown := map[int]bool{}
	add := func(id int) {
		if p.host(id).Status == Claimed || shown[id] {
			return
		}
		if len(shown) < maxDrawn {
			shown[id] = true
		} else {
			p.hidden++
		}
	}
	for _, path := range p.Paths {
		for _, id := range path.Hosts {
			if len(shown) < maxDrawn {
				add(id)
			}
		}
	}
	for _, h := range p.Hosts {
		add(h.ID)
	}
	return shown
}

func (p *picture) cell(id, column int) *cell {
	c := &cell{host: p.host(id), column: column}
	p.cells[id] = c
	return c
}

// part lays out hosts that are joined to each other.
func (p *picture) part(columns [][]*cell) {
	p.connect(columns)
	p.parts = append(p.parts, len(p.rows))
	per := len(columns)
	if per > rowColumns {
		rows := (per + rowColumns - 1) / rowColumns
		per = (per + rows - 1) / rows
	}
	for i := 0; i < len(columns); i += per {
		r := row{columns: columns[i:min(i+per, len(columns))]}
		p.stack(&r)
		for j, column := range r.columns {
			for _, c := range column {
				c.x = margin + float64(j)*(cardWidth+columnGap)
			}
		}
		if i+per < len(columns) {
			for _, c := range r.columns[len(r.columns)-1] {
				r.turning = append(r.turning, c.right...)
			}
		}
		p.width = max(p.width, float64(len(r.columns))*(cardWidth+columnGap)-columnGap)
		p.rows = append(p.rows, r)
	}
}

// connect cuts connections into segments from column to column and makes the places where they pass by.
func (p *picture) connect(columns [][]*cell) {
	for i := range p.Connections {
		k := &p.Connections[i]
		from, to := p.cells[k.From], p.cells[k.To]
		if from == nil || to == nil || from == to || !in(columns, from) {
			continue
		}
		back := from.column > to.column
		if back {
			from, to = to, from
		}
		passes := to.column - from.column - 1
		if p.lines == maxLines || p.passes+passes > maxPasses {
			p.hidden++
			continue
		}
		p.lines++
		p.passes += passes
		at := from
		for column := from.column + 1; column <= to.column; column++ {
			next := to
			if column < to.column {
				next = &cell{column: column, h: passHeight}
				columns[column] = append(columns[column], next)
			}
			s := &segment{link: k, a: at, b: next, back: back, first: at == from, last: next == to}
			at.right, next.left = append(at.right, s), append(next.left, s)
			at = next
		}
	}
	p.untangle(columns)
}

func in(columns [][]*cell, c *cell) bool {
	return c.column < len(columns) && slices.Contains(columns[c.column], c)
}

// untangle orders the cells of each column by their neighbours, and then the ends of connections at each cell.
func (p *picture) untangle(columns [][]*cell) {
	number := map[*cell]int{}
	var cells []*cell
	var ids [][]int
	for _, column := range columns {
		var of []int
		for _, c := range column {
			number[c] = len(cells)
			of = append(of, len(cells))
			cells = append(cells, c)
		}
		ids = append(ids, of)
	}
	g := newGraph(len(cells))
	for _, c := range cells {
		for _, s := range c.right {
			g.edge(number[c], number[s.b])
		}
	}
	g.untangle(ids)
	rank := map[*cell]int{}
	for i, column := range ids {
		for j, n := range column {
			columns[i][j] = cells[n]
			rank[cells[n]] = j
		}
	}
	compact := len(p.Hosts) > manyHosts
	for _, c := range cells {
		slices.SortStableFunc(c.left, func(x, y *segment) int { return cmp.Compare(rank[x.a], rank[y.a]) })
		slices.SortStableFunc(c.right, func(x, y *segment) int { return cmp.Compare(rank[x.b], rank[y.b]) })
		if c.host != nil {
			c.card = p.card(c.host, compact)
			c.h = headHeight + portHeight*float64(max(len(c.left), len(c.right))) + lineHeight*float64(len(c.card)) + 12
			for _, l := range c.card {
				if l.chip() {
					c.h += chipGap
				}
			}
		}
		for i, s := range c.left {
			s.yb = c.port(i)
		}
		for i, s := range c.right {
			s.ya = c.port(i)
		}
	}
}

// port is where the connection with that number ends, below the top of the cell.
func (c *cell) port(i int) float64 {
	if c.host == nil {
		return passHeight / 2
	}
	return headHeight + portHeight*(float64(i)+0.5)
}

// stack puts the cells of a row's columns above each other, near to where their neighbours are.
func (p *picture) stack(r *row) {
	for _, column := range r.columns {
		y := 0.0
		for _, c := range column {
			c.y = y
			y += c.h + rowGap
		}
	}
	within := func(c *cell) bool {
		return c.column >= r.columns[0][0].column && c.column <= r.columns[len(r.columns)-1][0].column
	}
	for i := range 2 * sweeps {
		for j := range r.columns {
			column := r.columns[j]
			if i%2 == 0 {
				column = r.columns[len(r.columns)-1-j]
			}
			wish := make([]float64, len(column))
			for n, c := range column {
				sum, count := 0.0, 0
				for _, s := range c.left {
					if within(s.a) {
						sum, count = sum+s.a.y+s.ya-s.yb, count+1
					}
				}
				for _, s := range c.right {
					if within(s.b) {
						sum, count = sum+s.b.y+s.yb-s.ya, count+1
					}
				}
				if wish[n] = c.y; count > 0 {
					wish[n] = sum / float64(count)
				}
			}
			settle(column, wish)
		}
	}
	top, bottom := r.columns[0][0].y, 0.0
	for _, column := range r.columns {
		top = min(top, column[0].y)
	}
	for _, column := range r.columns {
		for _, c := range column {
			c.y -= top
			bottom = max(bottom, c.y+c.h)
		}
	}
	r.height = bottom
}

// settle gives each cell the place nearest to its wish at which none covers another: neighbours that push each
// other move as one block, to the middle of their wishes.
func settle(column []*cell, wish []float64) {
	type block struct {
		wish float64 // of its top, the mean
		n    int
		h    float64
	}
	var blocks []block
	for i, c := range column {
		blocks = append(blocks, block{wish[i], 1, c.h + rowGap})
		for n := len(blocks); n > 1 && blocks[n-2].wish+blocks[n-2].h > blocks[n-1].wish; n = len(blocks) {
			a, b := blocks[n-2], blocks[n-1]
			mean := (a.wish*float64(a.n) + (b.wish-a.h)*float64(b.n)) / float64(a.n+b.n)
			blocks = append(blocks[:n-2], block{mean, a.n + b.n, a.h + b.h})
		}
	}
	i := 0
	for _, b := range blocks {
		y := b.wish
		for range b.n {
			column[i].y = y
			y += column[i].h + rowGap
			i++
		}
	}
}
