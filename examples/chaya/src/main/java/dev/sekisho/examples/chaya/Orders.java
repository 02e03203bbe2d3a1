package dev.sekisho.examples.chaya;

import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import org.springframework.http.HttpStatus;
import org.springframework.stereotype.Service;
import org.springframework.web.server.ResponseStatusException;

/** Takes orders. They are served at once, so that nothing is kept. */
@Service
public class Orders {
    /** At most this much of one thing: the house is small. */
    static final int MOST = 20;

    /** What somebody wants. */
    public record Line(String item, int count) {}

    /** What was ordered. */
    public record Order(long number, List<Line> lines, int mon) {}

    private final Menu menu;
    private final AtomicLong numbers = new AtomicLong();

    public Orders(Menu menu) {
        this.menu = menu;
    }

    public Order take(List<Line> lines) {
        if (lines == null || lines.isEmpty()) {
            throw wrong("An order has at least one line.");
        }
        int mon = lines.stream().mapToInt(this::price).sum();
        return new Order(numbers.incrementAndGet(), List.copyOf(lines), mon);
    }

    private int price(Line line) {
        Menu.Item item = menu.find(line.item()).orElseThrow(() -> wrong("There is no " + line.item() + "."));
        if (line.count() < 1 || line.count() > MOST) {
            throw wrong("Order between 1 and " + MOST + " of " + item.name() + ".");
        }
        return item.mon() * line.count();
    }

    private static ResponseStatusException wrong(String what) {
        return new ResponseStatusException(HttpStatus.UNPROCESSABLE_CONTENT, what);
    }
}
