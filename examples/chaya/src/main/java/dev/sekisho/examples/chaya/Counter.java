package dev.sekisho.examples.chaya;

import java.util.List;
import org.springframework.http.HttpStatus;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.ResponseStatus;
import org.springframework.web.bind.annotation.RestController;

/** The counter, over HTTP. */
@RestController
public class Counter {
    private final Menu menu;
    private final Orders orders;

    public Counter(Menu menu, Orders orders) {
        this.menu = menu;
        this.orders = orders;
    }

    @GetMapping("/menu")
    public List<Menu.Item> menu() {
        return menu.items();
    }

    @PostMapping("/orders")
    @ResponseStatus(HttpStatus.CREATED)
    public Orders.Order order(@RequestBody List<Orders.Line> lines) {
        return orders.take(lines);
    }

    @GetMapping("/healthz")
    public String healthz() {
        return "ok\n";
    }
}
